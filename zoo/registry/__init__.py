"""Registry of backbones, heads and tasks by name."""
