"""Fitting mixtures to volumes: one brick, density control, rounds over bricks, targets."""
