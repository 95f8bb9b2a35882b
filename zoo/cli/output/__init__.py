"""What users read: tables, rows, logs and messages, worded for the command line."""
