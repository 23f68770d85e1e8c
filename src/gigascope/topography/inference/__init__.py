"""Focus and picture of every view, by a trained network or by focus alone."""
