"""Labels as people write them, read and checked, and their encoding as targets."""
