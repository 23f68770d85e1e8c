"""Files of Gaussians: quantisation, entropy coding, the compact file and the Zarr group."""
