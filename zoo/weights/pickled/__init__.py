"""Pickled checkpoints of torch: checked, read without running code of theirs, and converted to safetensors."""
