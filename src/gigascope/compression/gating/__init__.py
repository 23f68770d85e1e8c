"""The gate: which voxels hold signal."""
