"""Bytes per Gaussian by component, and what quantisation loses; prints a table.

    python benchmarks/container.py [--quick] [--fit FILE.npz ...] [--json FILE]

Mixtures are random tubes (`gigascope.compression.gmix.bench_mixture`), or fits: arrays `means`, `log_scales`,
`quaternions`, `amplitudes` in voxels and units of the volume's range. Every method gets the same Gaussians. Loss is
that of the PSNR in the foreground (above 10 % of the range) against a volume of these Gaussians with noise 37.6 dB
below the range, as in the bench volume. Bytes are those of the whole file. Peers: float16 (22 bytes, positions within
a brick), the same integers bit-packed, and these after zstd 19. `theta` is in units of the noise variance.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from gigascope.compression.gmix import law_rows, model_fit, morton
from gigascope.compression.gmix.bench_mixture import tubes
from gigascope.compression.gmix.container import Gmix, Header, Intensity, split, write_compact, write_group
from gigascope.compression.gmix.payload import Coder
from gigascope.compression.gmix.quantise import CELL, LEVEL_0, Quantiser, Symbols, quantise
from gigascope.compression.mixture import Mixture
from gigascope.kernels import gaussians

CEILING_DB = 37.6
EPS, C_MAX = 1e-3, 3.5
BRICK = (64, 128, 128)
LAWS = {
    "fp 4, 8, 8, 10": Quantiser(),
    "fp 4, 7, 7, 9": Quantiser(4, 7, 7, 9),
    "fp 3, 7, 7, 8": Quantiser(3, 7, 7, 8),
    **{f"theta {t}": Quantiser(adaptive=True, theta=t * 10 ** (-CEILING_DB / 10)) for t in (0.25, 0.5, 1.0, 3.0)},
}


@dataclass
class Case:
    """Gaussians in a volume, scaled to the range, and the noisy volume of them."""

    name: str
    mixture: Mixture
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        field = self.render(self.mixture)
        self.mixture = Mixture(*self.mixture.tensors[:3], self.mixture.amplitudes / field.max())
        noise = torch.randn(self.shape, generator=torch.Generator().manual_seed(1)) * 10 ** (-CEILING_DB / 20)
        self.volume = self.render(self.mixture) + noise
        self.mask = self.volume > 0.1
        self.error = self._error(self.mixture)

    def render(self, mixture: Mixture) -> Tensor:
        """The field."""
        return gaussians.evaluate(*mixture.tensors, mixture.cuts(C_MAX, EPS), self.shape)

    def _error(self, mixture: Mixture) -> float:
        return float((self.render(mixture) - self.volume)[self.mask].double().square().mean())

    def loss(self, mixture: Mixture) -> float:
        """Decibels."""
        return 10 * math.log10(self._error(mixture) / self.error)

    def header(self, law: Quantiser) -> Header:
        """Of a file of this case."""
        scale = 1.0 if law.adaptive else float(self.mixture.amplitudes.abs().max())
        return Header(
            axes=("z", "y", "x"),
            shape=self.shape,
            dtype="uint16",
            intensity=(Intensity(90, 3510),),
            eps=(EPS,),
            quantiser=law,
            voxel_size_um=(0.5, 0.2, 0.2),
            brick=BRICK,
            amplitude_scale=scale,
        )


class Table:
    """Rows that are printed as they come and written as JSON at the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, case: Case, method: str, metric: str, value: float, unit: str) -> None:
        """Keep one number."""
        self.rows.append({"case": case.name, "method": method, "metric": metric, "value": value, "unit": unit})

    def line(self, method: str, *cells: str) -> None:
        """Print one line."""
        print(f"  {method:26}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small case, seconds in all")
    parser.add_argument("--fit", type=Path, nargs="*", default=[], help="fitted mixtures, npz")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    sizes = {1000: (64, 128, 128)} if options.quick else {1000: (64, 128, 128), 6000: (64, 256, 256)}
    if not options.quick:
        sizes[20_000] = (128, 384, 384)
    cases = [Case(f"{n} tubes", tubes(n, shape, 20240607), shape) for n, shape in sizes.items()]
    table = Table()
    for case in cases + [fitted(path) for path in options.fit]:
        print(f"\n{case.name}: {len(case.mixture)} Gaussians in {case.shape}")
        totals(table, case)
        components(table, case)
        symbols(table, case)
    if options.json:
        options.json.write_text(json.dumps(table.rows, indent=1) + "\n", encoding="utf-8")


def fitted(path: Path) -> Case:
    """A case from a file."""
    with np.load(path) as stored:
        names = ("means", "log_scales", "quaternions", "amplitudes")
        mixture = Mixture(*(torch.from_numpy(stored[name].astype(np.float32)) for name in names))
    z, y, x = (max(b, math.ceil(float(end))) for b, end in zip(BRICK, mixture.means.amax(0) + 1))
    return Case(path.stem, mixture, (z, y, x))


def totals(table: Table, case: Case) -> None:
    """Whole files and what the peers would take."""
    n = len(case.mixture)
    table.line("", "B/G", "packed", "zstd-19", "loss dB", "write us", "read us")
    half = [column.half().float() for column in case.mixture.tensors[1:]]
    brick = torch.tensor(BRICK)
    corner = torch.floor((case.mixture.means + 0.5) / brick) * brick
    means = ((case.mixture.means - corner) / brick).half().float() * brick + corner
    record(table, case, "float16", bytes_per=22.0, loss=case.loss(Mixture(means, *half)))
    with tempfile.TemporaryDirectory() as folder:
        for name, law in LAWS.items():
            path = Path(folder) / "a.gmix"
            bricks = split(case.mixture, case.header(law))
            background = np.zeros((1, *case.header(law).background_shape), np.float32)
            write_compact(path, case.header(law), bricks, background)  # compiles
            start = time.perf_counter()
            write_compact(path, case.header(law), bricks, background)
            written = time.perf_counter()
            with Gmix(path) as gmix:
                decoded = Mixture.concatenate(gmix.read_bricks(0, gmix.bricks(0)))
            taken = written - start, time.perf_counter() - written
            packed = None if law.adaptive else packings(case, law)
            record(table, case, name, path.stat().st_size / n, case.loss(decoded), packed, taken)
        folder_path = Path(folder) / "a.zarr"
        write_group(folder_path, case.header(LAWS["theta 1.0"]), split(case.mixture, case.header(law)), background)
        with Gmix(folder_path) as gmix:
            decoded = Mixture.concatenate(gmix.read_table(0, index) for index in gmix.bricks(0))
            size = gmix.bytes_by_component()["level_0"] / n
        record(table, case, "level 0 (tables)", size, case.loss(decoded), packings(case, LEVEL_0))


def record(
    table: Table,
    case: Case,
    method: str,
    bytes_per: float,
    loss: float,
    packed: tuple[float, float] | None = None,
    taken: tuple[float, float] | None = None,
) -> None:
    """One line of the first table."""
    n = len(case.mixture)
    table.add(case, method, "bytes per Gaussian", bytes_per, "B")
    table.add(case, method, "loss of PSNR in the foreground", loss, "dB")
    for name, value in zip(("bit-packed", "zstd 19"), packed or ()):
        table.add(case, f"{method}, {name}", "bytes per Gaussian", value, "B")
    for name, value in zip(("write", "read"), taken or ()):
        table.add(case, method, f"time to {name}", value / n, "s per Gaussian")
    cells = [f"{value:.2f}" for value in packed] if packed else ["", ""]
    cells += [f"{loss:.3f}", *([f"{1e6 * value / n:.1f}" for value in taken] if taken else ["", ""])]
    table.line(method, f"{bytes_per:.2f}", *cells)


def packings(case: Case, law: Quantiser) -> tuple[float, float]:
    """Bytes per Gaussian of the integers bit-packed, and of these after zstd."""
    planes = []
    for symbols in integers(case, law).values():
        place = symbols.cell.astype(np.int64) * (CELL << law.position_bits) + symbols.place
        codes = morton.encode(place, morton.bits_of([b << law.position_bits for b in BRICK])).astype(np.int64)
        half = (1 << (law.amplitude_bits - 1)) - 1
        fields = [(codes, sum(b.bit_length() - 1 + law.position_bits for b in BRICK))]
        fields += [(symbols.scales[:, k], law.scale_bits) for k in range(3)]
        fields += [(symbols.rotation[:, k], law.rotation_bits) for k in range(3)]
        fields += [
            (np.zeros(len(symbols), np.int64), 2),
            (symbols.amplitude.astype(np.int64) + half, law.amplitude_bits),
        ]
        bits = [np.asarray(v)[:, None] >> np.arange(n - 1, -1, -1) & 1 for v, n in fields]
        planes.append(np.concatenate(bits, axis=1))
    packed = np.packbits(np.concatenate(planes).ravel()).tobytes()
    n = len(case.mixture)
    return len(packed) / n, len(imagecodecs.zstd_encode(packed, level=19)) / n


def integers(case: Case, law: Quantiser) -> dict[tuple[int, int, int, int], Symbols]:
    """By brick."""
    header = case.header(law)
    bricks = split(case.mixture, header)
    return {key: quantise(own, BRICK, law, header.amplitude_scale)[0] for key, own in bricks.items()}


def components(table: Table, case: Case) -> None:
    """Bytes of the file by component."""
    names = ("header", "tables", "index", "background", "payload")
    table.line("", *names)
    with tempfile.TemporaryDirectory() as folder:
        for name, law in LAWS.items():
            header = case.header(law)
            background = np.zeros((1, *header.background_shape), np.float32)
            write_compact(Path(folder) / "a.gmix", header, split(case.mixture, header), background)
            with Gmix(Path(folder) / "a.gmix") as gmix:
                found = gmix.bytes_by_component()
            for part in names:
                table.add(case, name, f"bytes of {part}", found[part], "B")
            table.line(name, *(str(found[part]) for part in names))


def symbols(table: Table, case: Case) -> None:
    """Bits of the payload by parameter."""
    names = ("cell", "amplitude", "scales", "rotation", "place")
    table.line("bits per Gaussian", *names, "all")
    for name, law in LAWS.items():
        found = integers(case, law)
        rows = law_rows.law_rows(law, 1.0)
        coder = Coder(model_fit.fit(list(found.values()), BRICK, law, rows), BRICK, law)
        sums = np.zeros(5)
        for own in found.values():
            sums += bits_by_parameter(coder, own, law)
        sums /= len(case.mixture)
        for part, value in zip(names, sums):
            table.add(case, name, f"bits of {part}", float(value), "bit per Gaussian")
        table.line(name, *(f"{value:.2f}" for value in (*sums, sums.sum())))


def bits_by_parameter(coder: Coder, own: Symbols, law: Quantiser) -> np.ndarray:
    """(5,) bits of cells, amplitude, scales, rotation, places of a brick."""
    _, frequencies = coder.parts(own)
    bits = -np.log2(frequencies / 65536)
    # of a row: class, sign, two of the size; three scales; two of a direction where there is one, roll; three places
    rotation = np.full(len(own), 3)
    if law.adaptive:
        rows = coder.law
        for i, (scales, size) in enumerate(zip(own.scales.astype(np.int64), own.amplitude)):
            c = law_rows.amplitude_class(abs(int(size)))
            rotation[i] = 3 if law_rows.rotation_grid(*scales, rows.delta[c], rows.step[c])[0] else 1
    ends = len(bits) - (10 + rotation).sum() + np.cumsum(10 + rotation)
    sums = np.array([bits[: ends[0] - 10 - rotation[0]].sum(), 0.0, 0.0, 0.0, 0.0])
    for end, n in zip(ends, rotation):
        row = bits[end - 10 - n : end]
        sums[1:] += row[:4].sum(), row[4:7].sum(), row[7 : 7 + n].sum(), row[7 + n :].sum()
    return sums


if __name__ == "__main__":
    main()
