"""Predictions from the outputs of a model."""
