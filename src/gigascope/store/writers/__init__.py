"""Writers: alignments as other programs read them, and tomograms and stacks as MRC and TIFF.

Imports nothing by itself: what a stage imports decides when it runs again, and one format is not the others' business.
"""
