"""Contour models, one published method a file: a polygon an object."""
