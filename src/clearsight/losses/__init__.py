"""Losses as functions, one family a file."""
