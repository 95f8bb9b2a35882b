"""Fine-tuning: from the arguments of fit to the saved run."""
