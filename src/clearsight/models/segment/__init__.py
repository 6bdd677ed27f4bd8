"""Segmenters, one published method a file: a class a pixel, or a mask an object."""
