"""What can be told from images and labels before anything is trained."""
