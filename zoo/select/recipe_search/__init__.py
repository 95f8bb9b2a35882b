"""``fit(recipe="auto")``: choose how much of a backbone trains, by successive halving on the data at hand."""
