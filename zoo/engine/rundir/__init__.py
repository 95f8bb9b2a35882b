"""The folder of a run: lock, checkpoints, history, curves."""
