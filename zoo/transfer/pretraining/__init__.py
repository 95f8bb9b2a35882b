"""Self-supervised learning: objectives on unlabelled data, and the run before transfer."""
