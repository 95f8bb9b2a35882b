"""The engine: recipes are values, one loop fine-tunes any TaskModel, a run can be stopped and resumed exactly."""
