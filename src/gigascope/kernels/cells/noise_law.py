"""Constants of the counter-based noise that every implementation shares, so that all draw the same numbers.

A random number has an address: the voxel's linear index in the whole image, which draw of it, which acquisition. The
generator is Philox 4x32-10 (Salmon et al., SC 2011) with the counter (index low, index high, draw, acquisition) and the
two halves of a 64-bit key.
"""

from __future__ import annotations

# Philox 4x32-10: multipliers and the steps of the key
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10

# draws of one voxel: each purpose has its own range, trial by trial
POISSON = 0
GAMMA = 1 << 20
READ = 2 << 20
FIXED = 3 << 20

# below this mean the Poisson law is inverted term by term, above it Hörmann's transformed rejection is used
INVERSION_BELOW = 10.0

# a rejection loop ends long before: at most 0.2 of the trials are refused
MOST_TRIALS = 256

# Stirling's series of ln Gamma(x) in 1/x, for x >= 10: the next term is below 1e-15
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
HALF_LOG_2PI = 0.9189385332046727

# columns of the vector of parameters that the implementations take, float64
(EXCESS, READ_NOISE, GAIN, OFFSET, FULL_WELL, LARGEST, N_AVERAGE, GAIN_SPREAD, OFFSET_SPREAD) = range(9)
