"""Choosing on the data at hand."""
