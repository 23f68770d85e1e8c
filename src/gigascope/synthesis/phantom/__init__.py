"""Phantoms: spheroids as regions with nuclei in them, before any voxel is drawn."""
