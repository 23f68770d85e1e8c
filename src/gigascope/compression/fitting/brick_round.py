"""What one round does to one brick: read what is known of it and its neighbours, fit, keep the result."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gigascope.compression.correction.integer_decoder import integer_field
from gigascope.compression.correction.residual import ResidualSettings, encode_brick
from gigascope.compression.fitting import rate
from gigascope.compression.fitting.frame_fit import FrameFit
from gigascope.compression.fitting.lambda_search import Run
from gigascope.compression.fitting.region import Region
from gigascope.compression.fitting.volume_fit import VolumeFit, mixture_of, saved, saved_symbols
from gigascope.compression.mixture import Mixture

# Bricks from which the rate of the whole is estimated in a volume of very many.
MOST_COUNTED = 4096


class BrickRound:
    """One brick in one round.

    Parameters
    ----------
    fit : the volume
    fits : of each frame
    work : what was saved and what is to be saved, see :class:`gigascope.runtime.shared_work.ItemWork`
    item : the brick
    """

    def __init__(self, fit: VolumeFit, fits: Sequence[FrameFit], work: Any, item: int) -> None:
        self.whole = fit
        self.work = work
        self.item = item
        self.frame, self.index = fit.place(item)
        self.fit_of_frame = fits[self.frame]

    def fit(self, run: Run) -> None:
        """The fit proper: `run` takes a name and a resumable solver to its end."""
        fit, turn = self.fit_of_frame, self.whole.rounds[self.work.round]
        region = fit.region(self.index, self._neighbours() if turn.seam else {})
        own = mixture_of(self.work.read(self.item)) if turn.seam else None
        growth = self.growth_price if turn.seam else None
        mixture = run("fit", fit.solver(region, turn, own, growth)).mixture
        if not turn.seam:
            mixture = mixture[region.owned(mixture)]
        if not turn.finish:
            costs = fit.costs(region, mixture)
            self.work.save(**saved(mixture))
            self.work.metrics["histogram"] = rate.histogram(costs.cpu().numpy(), fit.plan.price)
            self.work.metrics["bits"] = fit.bits(self.index, mixture)
            self._measure(region, mixture)
            return
        thinned = fit.thinned(region, mixture, self.price)
        rounded = run("finish", fit.finishing(self.index, region, thinned)).mixture
        symbols, final = fit.finished(self.index, region, rounded)
        worth = fit.costs(region, final.to(fit.device)).cpu().numpy()
        self.work.save(**saved(final), **saved_symbols(symbols), costs=worth)
        self._measure(region, final.to(fit.device))

    def residual(self, settings: Mapping[str, Any]) -> None:
        """What the Gaussians of the brick and its neighbours leave, coded within a bound or with a step."""
        fit, model = self.fit_of_frame, self.fit_of_frame.model
        own = mixture_of(self.work.read(self.item))
        # the same order as the decoder's: sums of integers do not depend on it, the choice of Gaussians does
        mixture = Mixture.concatenate([own, *self._neighbours().values()])
        span = self.whole.grid.span(self.index)
        prediction = integer_field(
            mixture,
            model.background,
            tuple(slice(a, b) for a, b in span),
            offset=model.offset,
            scale=model.scale,
            c_max=fit.plan.c_max,
            eps=model.eps,
            dtype=self.whole.volume.dtype,
            cell=model.cell,
            device=fit.device,
        )
        values = np.asarray(self.whole.volume.array()[self.whole.key(self.frame, span)])
        law = ResidualSettings(self.whole.volume.dtype.name, model.noise, **settings)
        data = encode_brick(values, prediction.cpu().numpy(), law)
        self.work.save(residual=np.frombuffer(data, np.uint8))
        self.work.metrics["residual_bytes"] = len(data)

    @functools.cached_property
    def growth_price(self) -> float | None:
        """What a Gaussian must save to be let in late, if the first round came out smaller than asked for."""
        target = self.work.facts["target_bytes"]
        if target is None:
            return None
        _, bits, share = self._first_round
        bytes_now = rate.file_bytes(bits / 8 / share, len(self.work.opened["signal"]))
        return rate.growth_price(self.fit_of_frame.plan.price, bytes_now, target)

    @functools.cached_property
    def price(self) -> float:
        """What a Gaussian must save to stay, so that the file comes to the bytes asked for."""
        price, target = self.fit_of_frame.plan.price, self.work.facts["target_bytes"]
        if target is None or self.growth_price is not None:
            return min(price, self.growth_price or price)
        counts, bits, share = self._first_round
        room = (target - rate.file_bytes(0.0, len(self.work.opened["signal"]))) * 8 * share
        return rate.thinning_price(counts, max(room, 0.0) * sum(counts) / max(bits, 1.0), price)

    @functools.cached_property
    def _first_round(self) -> tuple[list[int], float, float]:
        """Histogram of savings and bits of all Gaussians of the first round, and the share of bricks looked at."""
        filled = sorted(i for i, n in enumerate(self.work.opened["signal"].tolist()) if n > 0)
        looked_at = filled[:: -(-len(filled) // MOST_COUNTED)]
        found = [self.work.metrics_of(i, 0) for i in looked_at]
        counts = np.sum([f["histogram"] for f in found], axis=0).tolist()
        return counts, sum(f["bits"] for f in found), len(looked_at) / len(filled)

    def _neighbours(self) -> dict[tuple[int, int, int], Mixture]:
        """The latest Gaussians of the bricks around, on the device."""
        found = {n: self.work.read(self.whole.item(self.frame, n)) for n in self.whole.grid.neighbours(self.index)}
        return {n: mixture_of(arrays).to(self.fit_of_frame.device) for n, arrays in found.items() if "means" in arrays}

    def _measure(self, region: Region, mixture: Mixture) -> None:
        """Count, and squared error in the gate of the brick itself, for progress and the table of bricks."""
        errors = (region.render(mixture) - region.target)[region.inner()]
        gate = region.gate[region.inner()]
        self.work.metrics["count"] = len(mixture)
        self.work.metrics["psnr"] = round(region.psnr(region.render(mixture) - region.target), 3)
        self.work.metrics["error"] = float(errors[gate].square().sum(dtype=torch.float64))
        self.work.metrics["voxels"] = int(gate.sum())
