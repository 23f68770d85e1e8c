"""Where every pixel of every view lies: poses of the views, their maps to the mosaic and back, candidates."""
