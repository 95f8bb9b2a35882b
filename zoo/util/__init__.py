"""Files, versions and child processes; independent of models."""
