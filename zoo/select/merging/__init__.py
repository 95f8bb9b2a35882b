"""One model of several runs: their mean (greedy soup), or the mean of their probabilities (greedy ensemble)."""
