"""What a microscope makes of a point: PSFs, how they change with depth, and the blur of volumes by them."""
