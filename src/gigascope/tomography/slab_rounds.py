"""Reconstructions slab by slab in rounds: what is kept between the rounds, and what one item does in each of them.

In a round a slab is read with its halo, iterated, and written without; see :mod:`gigascope.tomography.slabs`. The state
of a round is an array of its own, which is removed when the round after the next begins: on disk there are never more
than two. A volume that is one slab is iterated to its end in the first round, and keeps its state in memory. Then the
volumes are written into the output store, in blocks of its shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.errors import Checkpointed
from gigascope.tomography import slabs as cutting
from gigascope.tomography.algebraic import ReconstructUpdate
from gigascope.tomography.aligned_rows import Rows
from gigascope.tomography.levels import upsample_volume
from gigascope.tomography.reconstruct import Looks, TvSolver
from gigascope.tomography.slab_problem import SlabProblem, TomogramSolver
from gigascope.tomography.slabs import Slabs

if TYPE_CHECKING:
    import zarr

    from gigascope.store.create import ImageWriter
    from gigascope.store.plan import ShardPlan

# u, ubar and the three components of p
N_STATE = 5
# Runs a resumable computation to its end, from its checkpoint if there is one.
Solve = Callable[[str, Any], Any]


class SlabRounds:
    """Items and rounds of one or several reconstructions on equal slabs.

    Parameters
    ----------
    problems : by name; they have the same sizes and as many rounds
    slabs : their cut; SIRT and CGLS want a single one
    """

    def __init__(self, problems: Mapping[str, SlabProblem], slabs: Slabs) -> None:
        self._problems = dict(problems)
        self._names = list(problems)
        self.slabs = slabs
        # nothing is iterated for weighted backprojections
        self._iterate = all(problem.method != "wbp" for problem in problems.values())
        self._looks = {name: Looks(problem.parameters) for name, problem in problems.items()}

    @property
    def n_rounds(self) -> int:
        """Rounds of iterations."""
        most = max(problem.parameters.iterations for problem in self._problems.values())
        return cutting.n_rounds(most, self.slabs.round) if self._iterate else 0

    def items(self, n_rounds: int, plan: ShardPlan) -> list[range]:
        """Items of each of `n_rounds` rounds, the last of which writes the store that is cut by `plan`."""
        busy = min(self.n_rounds, 1 if len(self.slabs) == 1 else self.n_rounds)
        iterated = [range(len(self._names) * len(self.slabs) if r < busy else 0) for r in range(n_rounds - 1)]
        return [*iterated, range(len(self._names) * len(cutting.output_blocks(plan)))]

    # open

    def create(self, work: Any, starts: Mapping[str, Tensor | None] | None = None) -> list[Rows]:
        """Make the arrays that the rounds share.

        Parameters
        ----------
        work : of the open job
        starts : by name, coarse volumes (z, x, y) that reconstructions start from; none: from zero

        Returns
        -------
        for each reconstruction the arrays of its views and masks, (tilt, s, y), to be filled
        """
        band, made = self.slabs.round, []

        def create(name: str, plan: ShardPlan, dtype: Any = np.float32, until: int | None = None) -> zarr.Array:
            array: zarr.Array = work.create_array(name, plan.shape, dtype, plan=plan, compress=False, until=until)
            return array

        for name, problem in self._problems.items():
            samples = problem.samples
            made.append(
                (
                    create(f"{name}-views", cutting.samples_plan(samples, cutting.F32, band)),
                    create(f"{name}-mask", cutting.samples_plan(samples, 1, band), np.uint8),
                )
            )
            if not self._iterate:
                continue
            create(f"{name}-volume", cutting.state_plan(1, problem.shape, band))
            for r in range(self.n_rounds - 1 if len(self.slabs) > 1 else 0):
                create(f"{name}-state-{r}", cutting.state_plan(N_STATE, problem.shape, band), until=r + 1)
                create(f"{name}-dual-{r}", cutting.samples_plan(samples, cutting.F32, band), until=r + 1)
            start = (starts or {}).get(name)
            if start is not None:
                n_z, n_x, n_y = start.shape
                array = create(f"{name}-start", cutting.state_plan(1, (n_z, n_x, n_y), band), until=0)
                array[0] = start.cpu().numpy()
        return made

    # items

    def iterate(self, work: Any, item: int, solve: Solve, stop: Callable[[], bool]) -> None:
        """What a round of iterations does with one slab.

        Raises
        ------
        Checkpointed : `stop` said so
        """
        index, slab = divmod(item, len(self.slabs))
        name = self._names[index]
        if len(self.slabs) == 1:
            solver = solve(name, self._whole_solver(work, name))
            self._write_volume(work, name, self.slabs.rows(0), solver.volume)
            found = [asdict(row) for row in solver.history]
            work.save(**{key: np.array([row[key] for row in found]) for key in found[0]})
            return
        looks = self.looks(work, name)
        rows = self.slabs.rows(slab)
        if n := looks.next:
            self._advance(work, name, slab, n, stop)
        elif len(looks.history) == work.round:
            # the round before was the last: its state is removed like any other
            state = work.array(f"{name}-state-{work.round - 1}")
            work.array(f"{name}-volume")[0, :, :, rows] = state[0:1, :, :, rows]

    def _advance(self, work: Any, name: str, slab: int, n: int, stop: Callable[[], bool]) -> None:
        rows, window = self.slabs.rows(slab), self.slabs.window(slab)
        solver = self._solver(work, name, window)
        if work.round > 0:
            self._read_state(work, name, window, solver)
        for _ in range(n):
            if stop():
                raise Checkpointed(f"slab {slab}: stopped within a round; start again to do it again")
            solver.problem.iterate()
        own = slice(rows.start - window.start, rows.stop - window.start)
        shift = [slice(b.start - window.start, b.stop - window.start) for b in self.slabs.bands(rows)]
        work.save(objective=solver.problem.band_objectives(shift))
        if work.round + 1 == self.n_rounds:
            self._write_volume(work, name, rows, solver.volume[:, :, own])
            return
        state, dual = work.array(f"{name}-state-{work.round}"), work.array(f"{name}-dual-{work.round}")
        for place, volume in enumerate(_state(solver)):
            state[place : place + 1, :, :, rows] = volume[None, :, :, own].cpu().numpy()
        dual[:, :, rows] = solver.problem.q[:, :, own].cpu().numpy()

    def _whole_solver(self, work: Any, name: str) -> TomogramSolver:
        problem, rows = self._problems[name], self.slabs.rows(0)
        if problem.method == "tv":
            return self._solver(work, name, rows)
        return problem.algebraic_solver(*self._data(work, name, rows))

    def _solver(self, work: Any, name: str, window: slice) -> TvSolver:
        views, mask = self._data(work, name, window)
        start = self._start(work, name, window) if work.round == 0 else None
        return self._problems[name].solver(views, mask, start)

    def _data(self, work: Any, name: str, rows: slice) -> tuple[Tensor, Tensor]:
        views, mask = (work.array(f"{name}-{what}")[:, :, rows] for what in ("views", "mask"))
        return torch.from_numpy(views), torch.from_numpy(mask)

    def _start(self, work: Any, name: str, window: slice) -> Tensor | None:
        try:
            coarse = work.array(f"{name}-start")
        except KeyError:
            return None
        problem = self._problems[name]
        factor = problem.shape[0] // coarse.shape[1]
        read, place = cutting.coarse_rows(window, factor, coarse.shape[3])
        volume = torch.from_numpy(coarse[0:1, :, :, read][0]).to(problem.device)
        return upsample_volume(volume, factor)[:, :, place]

    def _read_state(self, work: Any, name: str, window: slice, solver: TvSolver) -> None:
        before = work.round - 1
        state, dual = work.array(f"{name}-state-{before}"), work.array(f"{name}-dual-{before}")
        for place, volume in enumerate(_state(solver)):
            volume.copy_(torch.from_numpy(state[place : place + 1, :, :, window][0]))
        solver.problem.q.copy_(torch.from_numpy(dual[:, :, window]))

    def _write_volume(self, work: Any, name: str, rows: slice, volume: Tensor) -> None:
        work.array(f"{name}-volume")[0:1, :, :, rows] = volume[None].cpu().numpy()

    # what comes out

    def looks(self, work: Any, name: str) -> Looks:
        """Objectives at the ends of the rounds before this one."""
        looks, first = self._looks[name], self._names.index(name) * len(self.slabs)
        if not self._iterate:
            return looks
        if len(self.slabs) == 1:
            found = work.read(first, 0)
            rows = zip(*(found[key].tolist() for key in ("iteration", "objective", "change")))
            looks.history = [ReconstructUpdate(*row) for row in rows]
            return looks
        # in the order of the slabs, so that the sums are those of one slab
        while len(looks.history) < min(work.round, self.n_rounds) and looks.next:
            saved = [work.read(first + slab, len(looks.history))["objective"] for slab in range(len(self.slabs))]
            looks.add(np.concatenate(saved))
        return looks

    def write(self, work: Any, item: int, written: ImageWriter | Any, scale: float) -> None:
        """One block of a volume into the output store (z, y, x), or into its channel of (c, z, y, x)."""
        blocks = cutting.output_blocks(written.plan)
        index, block = divmod(item, len(blocks))
        name, rows = self._names[index], blocks[block]
        if self._iterate:
            volume = torch.from_numpy(work.array(f"{name}-volume")[0:1, :, :, rows][0])
        else:
            volume = self._problems[name].backprojection(*self._data(work, name, rows))
        values: NDArray[np.float32] = (volume.permute(0, 2, 1) * scale).cpu().numpy()
        if len(written.shape) == 3:
            written[:, rows, :] = values
        else:
            written[index : index + 1, :, rows, :] = values[None]


def _state(solver: TvSolver) -> tuple[Tensor, ...]:
    """The volumes of a round's state, each (z, x, y)."""
    problem = solver.problem
    return (problem.u[0], problem.ubar[0], *problem.p[0])
