"""Comparison of runs and cross-validations: settings that differ, scores, paired tests."""
