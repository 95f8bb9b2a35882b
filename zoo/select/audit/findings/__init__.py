"""What a check of data can find, a kind of finding per module."""
