"""Semi-supervised learning: few labels, and many samples without."""
