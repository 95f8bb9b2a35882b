"""Verified weights from the Hub, files and packages."""
