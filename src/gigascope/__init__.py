"""gigascope: raw microscopy data to finished, browsable 3D results."""

import os

__version__ = "0.1.0"

# Before any library starts threads: those that wait by spinning slow each other ten to twenty times where several
# processes share the cores, as parts and cluster jobs do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Snakemake says how many threads a job has by this variable. numba does not look at it, and MKL, in torch, takes other
# paths where it has no number of its own: last bits of a result would depend on what ran before.
if "OMP_NUM_THREADS" in os.environ:
    # OpenMP takes a list too, one number for each level of nesting
    _threads = os.environ["OMP_NUM_THREADS"].split(",")[0]
    os.environ.setdefault("MKL_NUM_THREADS", _threads)
    os.environ.setdefault("NUMBA_NUM_THREADS", _threads)
