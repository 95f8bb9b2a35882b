"""The fault toolkit: what breaks plugins, files and runs, on purpose."""
