"""Fusion of an image backbone, a text backbone and columns of numbers of one table."""
