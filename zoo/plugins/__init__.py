"""Discovery and loading of plugins."""
