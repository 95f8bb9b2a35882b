"""What users type: flags, config files, settings and the lines of the standard input."""
