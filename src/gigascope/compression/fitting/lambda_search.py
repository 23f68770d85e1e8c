"""Find the lambda that meets a target, by fits of a few bricks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gigascope.compression.fitting import rate
from gigascope.compression.fitting.brick_solver import BrickSolver
from gigascope.compression.fitting.frame_fit import Round
from gigascope.compression.fitting.rate import Sample
from gigascope.compression.fitting.volume_fit import VolumeFit

# Runs a resumable fit under a name to its end.
Run = Callable[[str, BrickSolver], BrickSolver]
MOST_SAMPLES = 4
# Lost by rounding the parameters, decibels: a target PSNR is for what the file gives back.
ROUNDING_LOSS = 0.1


@dataclass(frozen=True)
class Target:
    """What is asked of the file: bytes, or PSNR in the gate (decibels); one of the two."""

    bytes: float | None = None
    psnr: float | None = None


def search(
    fit: VolumeFit, means: Sequence[float | None], signal: Sequence[int], target: Target, run: Run
) -> tuple[float, list[Sample]]:
    """Lambda for a target, and the samples it was found by.

    Parameters
    ----------
    means : mean value of each frame in its gate
    signal : voxels of signal of each item
    run : see :data:`Run`
    """
    chosen = rate.sampled_bricks(signal)
    aim = (
        {"bytes": rate.SURPLUS * target.bytes}
        if target.bytes is not None
        else {"psnr": (target.psnr or 0) + ROUNDING_LOSS}
    )
    samples: list[Sample] = []
    least = fit.least_rate(means)
    while chosen and len(samples) < MOST_SAMPLES and not rate.near_enough(samples, **aim):
        lam = rate.next_rate(samples, least, **aim)
        if samples and lam == samples[-1].rate:
            # at the end of the range: the target is out of reach, and is said to be so when the file is there
            break
        samples.append(sample(fit, means, signal, chosen, lam, lambda n, s: run(f"sample-{len(samples)}-{n}", s)))
    return rate.next_rate(samples, least, **aim), samples


def sample(
    fit: VolumeFit, means: Sequence[float | None], signal: Sequence[int], chosen: Sequence[int], lam: float, run: Run
) -> Sample:
    """Fit some bricks at one lambda and say what the whole would come to."""
    fits = fit.fits(means, lam)
    payload = error = voxels = 0.0
    for item in chosen:
        frame, index = fit.place(item)
        frame_fit = fits[frame]
        region = frame_fit.region(index, {})
        mixture = run(str(item), frame_fit.solver(region, Round(False, False), None)).mixture
        error += 10 ** (-region.psnr(region.render(mixture) - region.target) / 10) * signal[item]
        voxels += signal[item]
        mixture = frame_fit.thinned(region, mixture[region.owned(mixture)], frame_fit.plan.price)
        payload += frame_fit.bits(index, mixture) / 8
    whole = payload * sum(signal) / max(sum(signal[i] for i in chosen), 1)
    psnr = -10 * math.log10(max(error / max(voxels, 1), 1e-20))
    return Sample(lam, rate.file_bytes(whole, len(signal)), psnr)
