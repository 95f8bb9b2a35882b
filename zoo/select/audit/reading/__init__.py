"""What a check of data reads once: samples and columns, facts of each file, features of a backbone."""
