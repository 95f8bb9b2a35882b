"""The choice of a method of domain adaptation without labels of the target."""
