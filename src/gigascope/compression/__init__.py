"""Compression chain: volumes become mixtures of 3D Gaussians over a coarse background, and volumes again."""
