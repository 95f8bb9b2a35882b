"""Dual encoders of images and texts: their towers, texts about classes, and zero-shot heads."""
