"""Topography chain: z-stacks of a scanning camera array become an all-in-focus mosaic and its height map."""
