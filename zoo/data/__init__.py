"""Data sources as tables, decoding, augmentation and splits; a sample's randomness depends on (seed, epoch, index) only."""
