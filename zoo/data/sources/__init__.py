"""Readers of every kind of source: folders, tables, lists, arrays and datasets; each gives inputs and labels as they stand there."""
