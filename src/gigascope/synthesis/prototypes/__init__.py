"""Shapes and textures of nuclei out of labelled images: a library that phantoms draw from."""
