"""Files, versions and child processes; nothing here knows of models."""
