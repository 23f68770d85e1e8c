"""Training on an acquisition: what it is told, its processes, its course, and whether it was worth it."""
