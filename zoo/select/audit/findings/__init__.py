"""Findings of a check of data, a kind per module."""
