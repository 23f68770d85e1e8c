"""A synthetic multi-camera microscope with known truth: specimen, cameras, renderers, sensor."""
