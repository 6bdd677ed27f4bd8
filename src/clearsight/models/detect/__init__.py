"""Detectors, one published method a file."""
