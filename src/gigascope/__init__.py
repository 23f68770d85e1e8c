"""gigascope: raw microscopy data to finished, browsable 3D results."""

import os

__version__ = "0.1.0"

# Before any library starts threads: those that wait by spinning slow each other ten to twenty times where several
# processes share the cores, as parts and cluster jobs do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
