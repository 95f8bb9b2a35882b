"""Tables, rows, logs and messages, worded for the command line: what users read."""
