"""Splits and folds of a table, by class and group, and the equal samples that they keep together."""
