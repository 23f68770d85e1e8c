"""Writers: alignments as other programs read them, and tomograms and stacks as MRC and TIFF."""

from __future__ import annotations

from gigascope.store.writers.alignment import Alignment
from gigascope.store.writers.aln import AlnFile, read_aln, write_aln
from gigascope.store.writers.mrc import write_mrc_stack, write_mrc_volume
from gigascope.store.writers.portal import read_portal_json, write_portal_json
from gigascope.store.writers.tiff import write_tiff_stack, write_tiff_volume
from gigascope.store.writers.xf import read_tlt, read_xf, read_xf_matrices, write_tlt, write_xf

__all__ = [
    "Alignment",
    "AlnFile",
    "read_aln",
    "read_portal_json",
    "read_tlt",
    "read_xf",
    "read_xf_matrices",
    "write_aln",
    "write_mrc_stack",
    "write_mrc_volume",
    "write_portal_json",
    "write_tiff_stack",
    "write_tiff_volume",
    "write_tlt",
    "write_xf",
]
