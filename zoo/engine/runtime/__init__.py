"""Device, memory, signals and progress of one process."""
