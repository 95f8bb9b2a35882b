"""Texts: tokenizers, token ids, and texts that are too long."""
