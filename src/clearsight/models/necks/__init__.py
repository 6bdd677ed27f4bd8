"""Necks: between a backbone's pyramid and a dense head."""
