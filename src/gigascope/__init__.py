"""gigascope: raw microscopy data to finished, browsable 3D results."""

__version__ = "0.1.0"
