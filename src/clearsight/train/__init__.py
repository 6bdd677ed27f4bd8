"""Training: the loop, and everything that composes a run out of a recipe."""
