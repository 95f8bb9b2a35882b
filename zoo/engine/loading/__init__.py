"""From tables to batches on the device."""
