"""Inner loops of the reconstructions as torch custom ops: tensors in, tensors out, no I/O.

Every family is a folder of four rooms: ``op.py`` (what is called: checks, meta functions, autograd), ``reference.py``
(the definition in plain torch, float64), ``cpu.py`` (numba) and ``cuda.py`` (Triton). The device of the tensors
decides. Only voxels and radians here.
"""
