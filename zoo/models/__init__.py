"""Backbones with layer groups, task heads, and the module made of both."""
