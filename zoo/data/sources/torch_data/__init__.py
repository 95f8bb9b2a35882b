"""Torch datasets as sources of data: their items, targets and names of classes."""
