"""Saved models: weights, labels, preprocessing and a model card in one folder."""
