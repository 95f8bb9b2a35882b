"""Tables with a row per sample."""
