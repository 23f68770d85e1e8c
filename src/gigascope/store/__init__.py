"""Zarr stores: created in scratch, written shard by shard, verified, published whole, and opened only when complete."""
