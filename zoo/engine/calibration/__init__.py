"""Calibration of a model on held-out data."""
