"""The slice in focus at every pixel of a view, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gigascope.topography.focus.covered import Coverage
from gigascope.topography.focus.peak import FocusPeak
from gigascope.topography.focus.stream import focus_peak, settle, without_leaks
from gigascope.topography.network.evidence import REACH, SIGMAS, TRUNCATE, find_evidence
from gigascope.topography.network.model import HeightNetwork, tiles
from gigascope.topography.network.training import look
from gigascope.topography.streaming.view_stack import ViewStack

# Expected error in slices at which a confidence is one half.
HALF = 0.25
# Evidence knows no confidence below this: there is no texture.
NOTHING = 1.5e-3


@dataclass(frozen=True, eq=False)
class ViewFocus:
    """Of one view.

    Attributes
    ----------
    index : (r, c) float32, fractional slices
    confidence : (r, c) float32, 1 / (1 + (e / 0.25)^2) of the expected error e in slices, 0 without texture
    unseen : (r, c) bool, pixels that the slices of their focus do not show; none: all are shown
    """

    index: Tensor
    confidence: Tensor
    unseen: Tensor | None = None


@torch.no_grad()
def find_focus(
    stack: ViewStack,
    network: HeightNetwork | None,
    *,
    tile: int,
    fill: bool,
    device: torch.device,
    coverage: Coverage | None = None,
) -> ViewFocus:
    """Focus of a view, a tile after another.

    Parameters
    ----------
    network : on `device`; none: focus alone
    tile : side of the tiles, pixels; does not matter to the result, but for rounding
    fill : pixels in doubt follow those around them, see :func:`gigascope.topography.focus.stream.settle`
    device : where it is computed
    coverage : of the slices of a registered stack; none: every slice shows every pixel

    Raises
    ------
    ShapeError : stacks of fewer than 3 slices, or another number than the network takes
    """
    if network is None:
        peak = _focus_alone(stack, tile, device)
    elif network.architecture.prior == "focus":
        peak = _corrected(stack, network, tile, device)
    else:
        # the published network says nothing of its errors: where focus finds nothing, it does not either
        alone = _focus_alone(stack, tile, device)
        peak = FocusPeak(_of_network(stack, network, tile, device), alone.sharpness, alone.curvature, alone.confidence)
    if coverage is None:
        return ViewFocus((settle(peak) if fill else peak.index).cpu(), without_leaks(peak).cpu())
    # what a slice does not show must not fill what is around it either
    known = replace(peak, confidence=torch.where(coverage.shown(peak.index), peak.confidence, 0.0))
    index = settle(known) if fill else peak.index
    unseen = coverage.unseen(peak.index, peak.confidence, index)
    confidence = torch.where(unseen, 0.0, without_leaks(known))
    return ViewFocus(index.cpu(), confidence.cpu(), unseen.cpu())


class _Green:
    """Green of a stack as blocks of rows and columns, on a device."""

    def __init__(self, stack: ViewStack, device: torch.device) -> None:
        self._stack, self._device = stack, device

    @property
    def shape(self) -> Sequence[int]:
        return self._stack.n_z, *self._stack.size

    def __getitem__(self, key: tuple[slice, slice]) -> Tensor:
        slices, rows = key
        return self._stack.green(rows)[slices].to(self._device)


def _focus_alone(stack: ViewStack, tile: int, device: torch.device) -> FocusPeak:
    return focus_peak(
        _Green(stack, device),
        sigmas=SIGMAS[:2],
        truncate=TRUNCATE,
        working_bytes=8 * stack.n_z * tile * max(tile, stack.size[1]),
        device=device,
    )


def _corrected(stack: ViewStack, network: HeightNetwork, tile: int, device: torch.device) -> FocusPeak:
    """The network's index and confidence, and the sharpness that they rest on."""
    whole = [torch.empty(stack.size, device=device) for _ in range(3)]
    a = network.architecture
    for read, own, place in tiles(stack.size, a.multiple, tile, REACH + a.reach):
        part = stack.green(*read).to(device)[None]
        evidence = find_evidence(part)
        focus = look(network, part, evidence)
        confidence = _confidence(focus.log_variance.float())
        confidence[_confidence(evidence.log_variance) < NOTHING] = 0.0
        for to, found in zip(whole, (focus.index, evidence.sharpness, confidence)):
            to[place] = found[0][own]
    index, sharpness, confidence = whole
    return FocusPeak(index, sharpness, torch.zeros_like(index), confidence)


def _of_network(stack: ViewStack, network: HeightNetwork, tile: int, device: torch.device) -> Tensor:
    """Index of a network that takes the slices themselves."""
    index = torch.empty(stack.size, device=device)
    a = network.architecture
    for read, own, place in tiles(stack.size, a.multiple, tile, a.reach):
        index[place] = look(network, stack.green(*read).to(device)[None]).index[0].float()[own]
    return index


def _confidence(log_variance: Tensor) -> Tensor:
    return 1.0 / (1.0 + log_variance.exp() / HALF**2)
