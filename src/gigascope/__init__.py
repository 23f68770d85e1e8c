"""gigascope: raw microscopy data to finished, browsable 3D results."""
