"""Samples and columns, facts of each file and features of a backbone, which a check of data reads once."""
