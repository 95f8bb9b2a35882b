"""How far a model can be trusted: metrics by name, calibration, prediction sets, outliers and baselines; numpy only."""
