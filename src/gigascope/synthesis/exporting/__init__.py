"""Cultures as files that other programs read."""
