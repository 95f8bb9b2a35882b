"""Checks of what is given to a backbone and of what it gives, before torch fails on it."""
