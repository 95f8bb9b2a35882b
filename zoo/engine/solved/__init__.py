"""Linear heads solved for their optimum on fixed features, and what is judged by their held-out losses."""
