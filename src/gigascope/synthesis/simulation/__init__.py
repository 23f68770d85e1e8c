"""What a microscope makes of a phantom: light, optics, camera, block by block."""
