"""How far a training goes, how fast, and when it has collapsed: by steps, or by epochs as published."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# A discriminator whose loss stays below this has won: nothing is learned from it any more.
COLLAPSED = 1e-3


@dataclass(frozen=True)
class Schedule:
    """Steps and rates.

    Attributes
    ----------
    steps : in all
    lr, betas : of Adam, for generators and discriminators
    decay_from : share of the steps after which the rate falls along a line to 0
    epochs : (at the full rate, on the way down), which then say what `steps` and `decay_from` say; none: by steps
    epoch_steps : steps of an epoch
    d_every : discriminators learn in every so many-th step, or epoch where there are epochs
    ema : decay of the running mean of the generators' weights; 0: none
    collapse : steps in a row with a discriminator's loss below :data:`COLLAPSED` after which training ends; 0: never
    clip : largest norm of the gradients of the generators together; 0: as they are
    """

    steps: int
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay_from: float = 0.5
    epochs: tuple[int, int] | None = None
    epoch_steps: int = 1
    d_every: int = 1
    ema: float = 0.999
    collapse: int = 500
    clip: float = 0.0

    def factor(self, step: int) -> float:
        """Of the learning rate, at a step."""
        if self.epochs is not None:
            return epoch_factor(step // self.epoch_steps, *self.epochs)
        fixed = round(self.decay_from * self.steps)
        return 1.0 - max(0, step - fixed) / (self.steps - fixed + 1)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.lr * self.factor(step)

    def discriminators_learn(self, step: int) -> bool:
        """Whether they do at a step."""
        clock = step if self.epochs is None else step // self.epoch_steps
        return clock % self.d_every == 0

    def share(self, step: int) -> float:
        """Of the training that is done, 0 to 1."""
        return step / max(1, self.steps)


def epoch_factor(epoch: int, fixed: int, decay: int) -> float:
    """Factor of the learning rate in an epoch: 1 for `fixed` epochs, then down a line that reaches 0 after the last."""
    return 1.0 - max(0, epoch - fixed) / (decay + 1)


@dataclass
class Collapse:
    """Counts steps in which a discriminator has nothing to learn.

    Attributes
    ----------
    limit : steps in a row that are too many; 0: none are
    runs : in a row so far, of each discriminator
    """

    limit: int
    runs: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, *losses: float) -> bool:
        """Losses of the discriminators in one more step; true: training has collapsed."""
        self.runs = [run + 1 if loss < COLLAPSED else 0 for run, loss in zip(self.runs, losses)]
        return self.limit > 0 and max(self.runs) >= self.limit


# Of the running means of the label losses: about as many steps count.
FOLLOWED = 100


@dataclass
class LabelWeight:
    """Weight of the label term: from 0 up a line over the first third, halved when images get too easy.

    A strong term makes images that are easier to segment than real ones. Where the segmenter's running loss on images
    that are made is below that on simulated ones, the weight is halved, and then left alone until the running means
    are of later steps.

    Attributes
    ----------
    full : weight after the first third
    halvings : so far
    made, naive : running means of the losses
    count : steps that they are of
    """

    full: float
    halvings: int = 0
    made: float = math.nan
    naive: float = math.nan
    count: int = 0

    def at(self, share: float) -> float:
        """Weight where that share of the training is done."""
        return self.full * min(1.0, 3.0 * share) * 0.5**self.halvings

    def add(self, made: float, naive: float) -> None:
        """Losses of one more step."""
        self.count += 1
        keep = min(1 - 1 / self.count, 1 - 1 / FOLLOWED)
        before = (0.0, 0.0) if self.count == 1 else (self.made, self.naive)
        self.made, self.naive = (keep * b + (1 - keep) * value for b, value in zip(before, (made, naive)))
        if self.count >= FOLLOWED and self.made < self.naive:
            self.halvings += 1
            self.count = 0
