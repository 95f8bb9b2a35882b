"""Flags, config files, settings and the lines of the standard input: what users type."""
