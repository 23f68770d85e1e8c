"""Measures of quality on numpy, scipy and torch; they know nothing of stores and config."""
