"""Options of a run: recipes, the resolved configuration, and the epochs that follow from them."""
