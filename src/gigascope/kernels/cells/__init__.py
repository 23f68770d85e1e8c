"""Virtual cell cultures: rasterise nuclei, depth-dependent light, counter-based noise of a camera."""
