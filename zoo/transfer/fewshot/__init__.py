"""Few-shot classification: heads on fixed features, episodes, and learning to be adapted."""
