"""Search over the options of a run with Optuna: the best of many trials, kept as a run."""
