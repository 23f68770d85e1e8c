"""Training of the networks on batches of crops; can be stopped between two steps, and shared by several processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from gigascope.errors import ShapeError, UserError
from gigascope.synthesis.adaptation import losses
from gigascope.synthesis.adaptation.appearance import Appearance, histogram, ring_power
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.generator import Generator
from gigascope.synthesis.adaptation.loader import Batch, Crops
from gigascope.synthesis.adaptation.networks import Networks
from gigascope.synthesis.adaptation.objective import Objective
from gigascope.synthesis.adaptation.pool import ImagePool
from gigascope.synthesis.adaptation.schedule import Collapse, LabelWeight, Schedule
from gigascope.synthesis.adaptation.segmenter import label_loss, segmenter_loss
from gigascope.synthesis.seeds import generator

# Of the segmenter's Adam: a U-Net of this size learns from it within some hundred steps.
SEGMENTER_LR = 1e-3


@dataclass(frozen=True)
class Means:
    """What a step is computed with.

    Attributes
    ----------
    pool : images made earlier
    micro_batch : crops at a time; none: all of a process
    bfloat16 : networks compute in it, normalisation and losses do not
    recompute : see :class:`Generator`
    """

    pool: int = 50
    micro_batch: int | None = None
    bfloat16: bool = False
    recompute: bool = False


class Training:
    """Training of one adaptation.

    Parameters
    ----------
    networks : on the device to train on
    batches : the batch of a step, a function of its number alone; with several processes each one's own crops
    objective, schedule, means : see there
    seed : of the pools
    rank, ranks : every process makes the same steps, after `torch.distributed.init_process_group`; a step is that of
        all their crops together

    Attributes
    ----------
    step : that were made
    curves : losses of each
    collapsed : a discriminator has won, training has ended
    label : weight of the label term
    """

    def __init__(
        self,
        networks: Networks,
        batches: Callable[[int], Batch],
        objective: Objective,
        schedule: Schedule,
        means: Means,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if objective.label and "segmenter" not in networks:
            raise ShapeError("training: the label term needs a segmenter")
        self.networks, self.batches = networks, batches
        self.objective, self.schedule, self.means, self.seed = objective, schedule, means, seed
        self.step, self.collapsed = 0, False
        self.curves: list[dict[str, float]] = []
        self._rank, self._ranks = rank, ranks
        self._device = next(networks.parameters()).device
        for name in ("to_a", "to_b"):
            networks[name].recompute = means.recompute  # type: ignore[assignment]
        self.averages = networks.averages() if schedule.ema else None
        self._optimisers = {
            "generators": torch.optim.Adam(networks.generators(), lr=schedule.lr, betas=schedule.betas),
            "discriminators": torch.optim.Adam(networks.discriminators(), lr=schedule.lr, betas=schedule.betas),
        }
        if "segmenter" in networks:
            self._optimisers["segmenter"] = torch.optim.Adam(networks["segmenter"].parameters(), lr=SEGMENTER_LR)
        self._pools = {name: ImagePool(means.pool) for name in ("a", "b")}
        self._appearances = {name: Appearance() for name in ("a", "b")}
        self._collapse = Collapse(schedule.collapse)
        self.label = LabelWeight(objective.label)

    def updates(self) -> Iterator[str]:
        """Go on to the end, or until it has collapsed; each update is the losses in words.

        Raises
        ------
        UserError : losses are no numbers any more
        """
        self.networks.train()
        while self.step < self.schedule.steps and not self.collapsed:
            self._make_step()
            shown = ("fool_a", "cycle_a", "cycle_b", "judge_a", "judge_b", "label")
            row = self.curves[-1]
            yield ", ".join(f"{name} {row[name]:.3g}" for name in shown if name in row)

    @property
    def used(self) -> dict[str, Generator]:
        """Generators for inference: the running means, if there are any."""
        if self.averages is not None:
            return self.averages
        return {name: self.networks[name] for name in ("to_a", "to_b")}  # type: ignore[misc]

    def _make_step(self) -> None:
        schedule, batch = self.schedule, self.batches(self.step)
        rate = schedule.rate(self.step)
        for name in ("generators", "discriminators"):
            for group in self._optimisers[name].param_groups:
                group["lr"] = rate
        parts = list(self._parts(batch))
        row: dict[str, Tensor] = {}
        made = self._generators(parts, row)
        if schedule.discriminators_learn(self.step):
            self._discriminators(parts, made, row)
        if "segmenter" in self.networks:
            self._segmenter(parts, made["a"], row)
        self._follow()
        self._note(row, rate)
        self.step += 1

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        size = self.means.micro_batch or len(batch)
        for start in range(0, len(batch), size):
            yield batch.part(start, min(len(batch), start + size))

    def _run(self, network: nn.Module, image: Tensor, depth: Tensor) -> Tensor:
        known = depth if self.networks.architecture.depth else None
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.means.bfloat16):
            return network(image, known)

    def _generators(self, parts: list[Batch], row: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both learn; returns what they made, `a` of domain b and `b` of domain a."""
        nets, o = self.networks, self.objective
        _require(nets, ("to_a", "to_b"))
        made: dict[str, list[Tensor]] = {"a": [], "b": []}
        weight = self.label.at(self.schedule.share(self.step))
        seen: dict[str, dict[str, Tensor]] = {"a": {}, "b": {}}
        for part in parts:
            share = len(part) / self._count(parts)
            terms: dict[str, Tensor] = {}
            images = {name: self._images(nets[f"to_{name}"], name, part) for name in ("a", "b")}
            for here, there, source in (("a", "b", part.a), ("b", "a", part.b)):
                new, same = images[there][0], images[here][1]
                terms[f"fool_{there}"] = losses.adversarial(self._run(nets[f"judge_{there}"], new, source.depth), True)
                again = self._run(nets[f"to_{here}"], new, source.depth)
                terms[f"cycle_{here}"] = o.cycle * losses.difference(again, source.image)
                if same is not None:
                    terms[f"identity_{here}"] = o.identity * o.cycle * losses.difference(same, source.image)
                made[there].append(new.detach())
                measured = self._measured(new, part.a if there == "a" else part.b)
                pulls = self._appearances[there].terms(measured)
                terms |= {f"{name}_{there}": getattr(o, name) * pull for name, pull in pulls.items()}
                _add(seen[there], measured, share)
                if there == "a":
                    terms |= self._kept(new, source, weight, row)
            (torch.stack(list(terms.values())).sum() * share).backward()
            _add(row, terms, share)
        for name, appearance in self._appearances.items():
            appearance.follow(self._summed(seen[name]))
        self._learn("generators", nets.generators(), row)
        return {name: torch.cat(images) for name, images in made.items()}

    def _images(self, network: nn.Module, name: str, part: Batch) -> tuple[Tensor, Tensor | None]:
        """What a generator makes of crops of the other domain, and, where it counts, of those of its own."""
        own, other = (part.a, part.b) if name == "a" else (part.b, part.a)
        if not self.objective.identity:
            return self._run(network, other.image, other.depth), None
        # in one batch: torch takes a slower convolution on a CPU for a single small image
        together = torch.cat([other.image, own.image]), torch.cat([other.depth, own.depth])
        new, same = self._run(network, *together).split(len(part))
        return new, same

    def _measured(self, new: Tensor, own: Crops) -> dict[str, Tensor]:
        """What counts of the appearance of images that are made for a domain, and of its own crops."""
        measures = {"power": ring_power} if self.objective.spectrum else {}
        measures |= {"histogram": histogram} if self.objective.histogram else {}
        kinds = (("made", new), ("real", own.image))
        return {f"{name} {kind}": measure(image) for name, measure in measures.items() for kind, image in kinds}

    def _kept(self, new: Tensor, source: Crops, weight: float, row: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms by which what was in an image stays where it was."""
        terms = {}
        if self.objective.label and source.targets is not None and weight > 0:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.means.bfloat16):
                said = self.networks["segmenter"](new)
            terms["label"] = weight * label_loss(said, source.targets)
        if self.objective.structure:
            terms["structure"] = self.objective.structure * losses.structure(new, source.image)
        return terms

    def _discriminators(self, parts: list[Batch], made: dict[str, Tensor], row: dict[str, Tensor]) -> None:
        nets = self.networks
        _require(nets, ("judge_a", "judge_b"))
        shown = {}
        for name, source in (("a", "b"), ("b", "a")):
            depths = torch.cat([getattr(part, source).depth for part in parts])
            shown[name] = self._exchanged(name, made[name], depths)
        start = 0
        for part in parts:
            terms, stop = {}, start + len(part)
            for name in ("a", "b"):
                judge, real = nets[f"judge_{name}"], getattr(part, name)
                images, depths = (values[start:stop] for values in shown[name])
                of_real = self._run(judge, real.image, real.depth)
                terms[f"judge_{name}"] = losses.discriminator_loss(of_real, self._run(judge, images, depths))
            share, start = len(part) / self._count(parts), stop
            (torch.stack(list(terms.values())).sum() * share).backward()
            _add(row, terms, share)
        self._learn("discriminators", nets.discriminators(), row)

    def _exchanged(self, name: str, made: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
        """This process's images out of the pool, which is the same in all processes."""
        every = self._gathered(made), self._gathered(depths)
        random = generator(self.seed, "train", "pool", name, self.step)
        images, known = self._pools[name].exchange(*every, random)
        mine = slice(self._rank * len(made), (self._rank + 1) * len(made))
        if known is None:
            raise RuntimeError("a pool without depths")
        return images[mine], known[mine]

    def _segmenter(self, parts: list[Batch], made: Tensor, row: dict[str, Tensor]) -> None:
        """Learns on simulated crops and on what was made of them."""
        network = self.networks["segmenter"]
        _require(self.networks, ("segmenter",))
        start = 0
        for part in parts:
            targets, stop = part.b.targets, start + len(part)
            if targets is None:
                raise RuntimeError("a segmenter, and crops without labels")
            share = len(part) / self._count(parts)
            for name, image in (("naive", part.b.image), ("made", made[start:stop])):
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self.means.bfloat16):
                    said = network(image)
                loss = segmenter_loss(said, targets)
                (0.5 * share * loss).backward()
                _add(row, {f"segmenter_{name}": loss, f"label_{name}": label_loss(said, targets)}, share)
            start = stop
        self._learn("segmenter", list(network.parameters()), row)

    def _learn(self, name: str, parameters: list[nn.Parameter], row: dict[str, Tensor]) -> None:
        """Step of an optimiser, by the gradients of all processes."""
        if self._ranks > 1:
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            flat = torch.cat([g.reshape(-1) for g in grads])
            distributed.all_reduce(flat)
            for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
                p.grad = part.reshape(p.shape).clone()
        limit = self.schedule.clip if name == "generators" and self.schedule.clip else math.inf
        row[f"gradient_{name}"] = nn.utils.clip_grad_norm_(parameters, limit) / self._ranks
        self._optimisers[name].step()
        self._optimisers[name].zero_grad(set_to_none=True)

    def _count(self, parts: list[Batch]) -> int:
        """Crops of a step, over all processes."""
        return sum(map(len, parts)) * self._ranks

    def _gathered(self, values: Tensor) -> Tensor:
        if self._ranks == 1:
            return values
        found = [torch.empty_like(values) for _ in range(self._ranks)]
        distributed.all_gather(found, values.contiguous())
        return torch.cat(found)

    def _summed(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Over all processes."""
        if self._ranks > 1:
            for value in values.values():
                distributed.all_reduce(value)
        return values

    def _follow(self) -> None:
        """Running means of the generators; young ones forget their start sooner."""
        if self.averages is None:
            return
        keep = min(self.schedule.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, average in self.averages.items():
                mine: list[Tensor] = list(self.networks[name].parameters())
                torch._foreach_lerp_(list(average.parameters()), mine, 1 - keep)

    def _note(self, row: dict[str, Tensor], rate: float) -> None:
        """Losses of all processes; what follows from them."""
        names = list(row)
        values = torch.stack([row[name].detach().double() for name in names])
        if self._ranks > 1:
            distributed.all_reduce(values)
        found = dict(zip(names, values.tolist()))
        if not all(map(math.isfinite, found.values())):
            bad = ", ".join(name for name, value in found.items() if not math.isfinite(value))
            what = f"training has diverged: at step {self.step} {bad} is no number."
            raise UserError(what, where="train", do="Set a lower train.lr, or train.amp: off.")
        shown = {"step": float(self.step), "rate": rate, **found}
        if "label_made" in found:
            shown["label_weight"] = self.label.at(self.schedule.share(self.step))
            self.label.add(found["label_made"], found["label_naive"])
        if "judge_a" in found:
            self.collapsed = self._collapse.add(found["judge_a"], found["judge_b"])
        self.curves.append(shown)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, and to use the networks."""
        averages = None if self.averages is None else {n: a.state_dict() for n, a in self.averages.items()}
        return {
            "architecture": self.networks.architecture.to_dict(),
            "step": self.step,
            "collapsed": self.collapsed,
            "networks": self.networks.states(),
            "averages": averages,
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            "pools": {name: pool.state_dict() for name, pool in self._pools.items()},
            "appearances": {name: appearance.state_dict() for name, appearance in self._appearances.items()},
            "runs": list(self._collapse.runs),
            "label": asdict(self.label),
            "curves": list(self.curves),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises
        ------
        ShapeError : it is that of other networks
        """
        saved = Architecture.from_dict(state["architecture"])
        if saved != self.networks.architecture:
            differences = saved.differences(self.networks.architecture)
            raise ShapeError(f"training: checkpoint and networks differ: {differences}")
        self.step, self.collapsed = state["step"], state["collapsed"]
        self.networks.load_states(state["networks"])
        for name, average in (self.averages or {}).items():
            average.load_state_dict(state["averages"][name])
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        for name, pool in self._pools.items():
            pool.load_state_dict(state["pools"][name], self._device)
        for name, appearance in self._appearances.items():
            appearance.load_state_dict(state["appearances"][name], self._device)
        self._collapse.runs = list(state["runs"])
        self.label = LabelWeight(**state["label"])
        self.curves = list(state["curves"])


def _require(networks: Networks, learning: tuple[str, ...]) -> None:
    """Gradients for these networks only: what the others need on the way is not kept."""
    for name, network in networks.items():
        network.requires_grad_(name in learning)


def _add(row: dict[str, Tensor], terms: dict[str, Tensor], share: float) -> None:
    for name, value in terms.items():
        row[name] = row.get(name, torch.zeros((), device=value.device)) + share * value.detach()
