"""The options of a run: recipes, the resolved configuration, the epochs that follow from them."""
