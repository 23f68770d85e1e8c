"""A chain with two scattered stages, small enough for tests; see tests/toy/__init__.py."""
