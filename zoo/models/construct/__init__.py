"""From a declaration and a file of tensors to a module with its values."""
