"""The one gate for bytes: from the Hub, files and packages to verified tensors."""
