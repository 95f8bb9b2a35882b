"""Backbones with layer groups, task heads, and the task model that joins them."""
