"""From installed entry points to the results of their hooks."""
