"""What can be told from a run, while it goes or afterwards: curves, gradients, units, times."""
