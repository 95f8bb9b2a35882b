"""Trust in a model: metrics by name, calibration, prediction sets, outliers and baselines; numpy only."""
