"""What can be told from a model, from its parts alone or from one batch of real images."""
