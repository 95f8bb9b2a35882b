"""From a name to a declaration."""
