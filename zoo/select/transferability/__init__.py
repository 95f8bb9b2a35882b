"""Scores of how well pretrained features suit labelled data, computed without training; see docs/rank.md."""
