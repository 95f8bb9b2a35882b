"""Optimizers, learning-rate schedules, weight averages and the guard against values that are not finite."""
