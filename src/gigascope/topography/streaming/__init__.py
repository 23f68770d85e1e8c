"""Crops of the views of random mosaic points, read from the raw store while the network trains."""
