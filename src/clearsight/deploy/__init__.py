"""Trained models at work: predictors for files, folders and arrays."""
