"""Results in files: written part by part, joined when all are there."""
