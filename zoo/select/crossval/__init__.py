"""Cross-validation: scores with intervals, out-of-fold predictions, and an ensemble of the folds."""
