"""Data: any source becomes one table, images are decoded right or refused, samples are random by (seed, epoch, index) only."""
