"""Readers: tilt series of MRC, TIFF and OME-Zarr, and the text files that belong to them.

Imports nothing by itself: what a stage imports decides when it runs again, and one format is not the others' business.
"""
