"""Evaluation and prediction: batched inference, metrics, confidence intervals."""
