"""What is wrong with data, a model or a run, how one can tell, and what to do about it."""
