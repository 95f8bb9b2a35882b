"""Tasks: what a head predicts, with its targets, loss, metrics and decoding; one file each."""
