"""Speed of decoding a compressed volume: all of it, and a region of interest beside the same region of an OME-Zarr.

    python benchmarks/decode.py [--edge 1024] [--quick] [--device auto|cpu|cuda] [--folder DIR] [--json FILE]

The volume is synthetic and cubic: Gaussians as dense as a neuron volume has them, one per 1,000 voxels, spread evenly,
which is the hardest case for random access, with the scales and amplitudes of a fit. It is written as a compact file.
A full decode makes every voxel in the dtype of the file, box by box, without writing them.

A region is 64^3 voxels at a random place, decoded from a file that was just opened and of which nothing is kept; times
are the median and the largest of 25 places, each the least of 5 runs: what else runs on a machine only adds. The
OME-Zarr beside it holds the same voxels with noise, in the house's chunks of 64^3 under blosc-zstd; only the shards
that the places touch are written. Files are in the page cache in both cases.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import zarr

from gigascope.compression.decoding.decode import Decoder, to_dtype
from gigascope.compression.decoding.indexing import Box, block_shape, boxes
from gigascope.compression.gmix.container import Gmix, Header, Intensity, write_compact
from gigascope.compression.gmix.index import BrickPlaces
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.mixture import Mixture
from gigascope.runtime.device import choose_device, describe
from gigascope.store.create import create_image, plan_of

T = TypeVar("T")

VOXELS_PER_GAUSSIAN = 1000
# Of a fit of the bench volume's crop: medians and logarithmic spreads of the shortest standard deviation (voxels), of
# the longest over the shortest, and of the amplitude (units of the range); the longest allowed.
SIGMA, SIGMA_SPREAD = 1.55, 0.28
ASPECT, ASPECT_SPREAD = 2.2, 0.3
AMPLITUDE, AMPLITUDE_SPREAD = 0.3, 0.55
LONGEST = 4.57
NEGATIVE = 0.15
SCALE, OFFSET, EPS, NOISE = 3500.0, 100.0, 7e-4, 10.0
# what the fit uses at about the ratio of the bench volume
THETA = 5e-4
ROI = 64
N_PLACES = 25
N_RUNS = 5


@dataclass
class Table:
    """What is printed and written as JSON."""

    rows: list[dict[str, Any]]

    def add(self, case: str, method: str, metric: str, value: float, unit: str) -> None:
        self.rows.append({"case": case, "method": method, "metric": metric, "value": value, "unit": unit})
        print(f"{case:<22}{method:<22}{metric:<26}{value:>12,.4g} {unit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=1024, help="voxels along each axis, default 1024")
    parser.add_argument("--quick", action="store_true", help="256 voxels along each axis")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--folder", type=Path, help="disk to write on; default: the system's temporary folder")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    edge, device = 256 if args.quick else args.edge, choose_device(args.device)
    table = Table([])
    print(f"{edge}^3 voxels on {describe(device)}")
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="gigascope-benchmark-") as name:
        path = Path(name) / "volume.gmix"
        write_volume(path, edge)
        gmix = opened(path, table)
        places = regions(edge)
        full(gmix, device, table)
        random_access(gmix, device, places, table)
        zarr_access(Path(name) / "volume.zarr", gmix, places, table)
    if args.json:
        args.json.write_text(json.dumps(table.rows, indent=1) + "\n", encoding="utf-8")


def write_volume(path: Path, edge: int) -> None:
    """A compact file with evenly spread Gaussians, made brick by brick."""
    header = Header(
        axes=("z", "y", "x"),
        shape=(edge,) * 3,
        dtype="uint16",
        intensity=(Intensity(OFFSET, SCALE),),
        eps=(EPS,),
        quantiser=Quantiser(adaptive=True, theta=THETA),
        voxel_size_um=(0.5, 0.2, 0.2),
    )
    rng = np.random.default_rng(0)
    backgrounds = rng.uniform(0.01, 0.04, (1, *header.background_shape)).astype(np.float32)
    write_compact(path, header, bricks(header, rng), backgrounds)


def bricks(header: Header, rng: np.random.Generator) -> Iterator[tuple[tuple[int, int, int, int], Mixture]]:
    """Every brick's Gaussians, in the order of the file."""
    places = BrickPlaces(header)
    for row in range(len(places)):
        key = places.key(row)
        shape = np.array([min(b, n - i * b) for i, b, n in zip(key[1:], header.brick, header.frame_shape)])
        n = rng.poisson(shape.prod() / VOXELS_PER_GAUSSIAN)
        signs = np.where(rng.random(n) < NEGATIVE, -1.0, 1.0)
        shortest = SIGMA * np.exp(SIGMA_SPREAD * rng.normal(size=n))
        longest = np.minimum(LONGEST, shortest * np.maximum(1, ASPECT * np.exp(ASPECT_SPREAD * rng.normal(size=n))))
        middle = np.minimum(longest, 1.15 * shortest)
        columns = (
            rng.uniform(0, 1, (n, 3)) * shape - 0.5,
            np.log(np.stack((shortest, middle, longest), 1)),
            rng.normal(size=(n, 4)),
            signs * np.minimum(1, AMPLITUDE * np.exp(AMPLITUDE_SPREAD * rng.normal(size=n))),
        )
        yield key, Mixture(*(torch.from_numpy(c.astype(np.float32)) for c in columns))


def opened(path: Path, table: Table) -> Gmix:
    """The file, opened a second time: the first one compiles."""
    Gmix(path).close()
    begun = time.perf_counter()
    gmix = Gmix(path)
    table.add("open", "compressed", "time", 1e3 * (time.perf_counter() - begun), "ms")
    size = path.stat().st_size
    table.add("open", "compressed", "size", size / 1e6, "MB")
    table.add("open", "compressed", "bytes per Gaussian", size / len(gmix), "B")
    table.add("open", "compressed", "ratio to raw", 2 * math.prod(gmix.header.shape) / size, "1")
    return gmix


def regions(edge: int) -> list[Box]:
    """Places of the region, the first one to warm up; all between two planes of shards, to keep the OME-Zarr small."""
    rng = np.random.default_rng(1)
    depth = edge // 2 // ROI * ROI
    found = []
    for _ in range(N_PLACES + 1):
        z, y, x = int(rng.integers(depth - ROI, depth + 1)), *rng.integers(0, edge - ROI + 1, 2).tolist()
        found.append((slice(z, z + ROI), slice(y, y + ROI), slice(x, x + ROI)))
    return found


def full(gmix: Gmix, device: torch.device, table: Table) -> None:
    """Every voxel once, in the dtype of the file."""
    decoder = Decoder(gmix, device)
    shape = decoder.shape
    whole = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    parts = list(boxes(whole, block_shape(shape, gmix.header.brick)))
    to_dtype(decoder.region(0, parts[0]), gmix.header.dtype)
    decoder = Decoder(gmix, device)
    begun = time.perf_counter()
    for part in parts:
        to_dtype(decoder.region(0, part), gmix.header.dtype)
    spent = time.perf_counter() - begun
    table.add("full decode", "compressed", "time", spent, "s")
    table.add("full decode", "compressed", "rate", math.prod(shape) / spent / 1e6, "MVoxel/s")


def random_access(gmix: Gmix, device: torch.device, places: list[Box], table: Table) -> None:
    """Regions by decoders that have read nothing yet."""
    counts: dict[int, int] = {}

    def fresh() -> Decoder:
        return Decoder(Gmix(gmix.path), device)

    def read(decoder: Decoder, place: Box) -> None:
        before = decoder.gmix.bytes_read
        to_dtype(decoder.region(0, place), gmix.header.dtype)
        counts[id(place)] = decoder.gmix.bytes_read - before

    read(fresh(), places[0])
    times = timed(fresh, read, places[1:])
    report(table, "compressed", times, [counts[id(place)] for place in places[1:]])
    touched = [len(gmix.touching(0, place)) for place in places[1:]]
    table.add("region 64^3", "compressed", "bricks touched, mean", float(np.mean(touched)), "1")


def zarr_access(path: Path, gmix: Gmix, places: list[Box], table: Table) -> None:
    """The same regions of an OME-Zarr with noise."""
    shape = gmix.header.frame_shape
    writer = create_image(path, shape=shape, dtype="uint16", axes=("z", "y", "x"))
    decoder, rng = Decoder(gmix), np.random.default_rng(2)
    for region in writer.shard_regions():
        if any(all(a.start < b.stop and b.start < a.stop for a, b in zip(region, place)) for place in places):
            noisy = decoder.region(0, region)  # type: ignore[arg-type]
            noisy += torch.from_numpy(rng.standard_normal(noisy.shape, np.float32)) * NOISE
            writer[region] = to_dtype(noisy, "uint16")

    def fresh() -> Any:
        return zarr.open_group(path, mode="r")["0"]

    times = timed(fresh, lambda array, place: array[place], places[1:])
    report(table, "OME-Zarr, blosc-zstd", times, [chunk_bytes(path, place) for place in places[1:]])


def chunk_bytes(path: Path, place: Box) -> int:
    """Compressed bytes of the chunks that a region touches, from the indexes of the shards; and these indexes."""
    array = zarr.open_group(path, mode="r")["0"]
    plan = plan_of(array)  # type: ignore[arg-type]
    chunks = [range(p.start // c, -(-p.stop // c)) for p, c in zip(place, plan.chunks)]
    per_shard = [s // c for s, c in zip(plan.shards, plan.chunks)]
    total, seen = 0, {}
    for index in np.stack(np.meshgrid(*chunks, indexing="ij"), -1).reshape(-1, 3).tolist():
        shard = tuple(i // n for i, n in zip(index, per_shard))
        if shard not in seen:
            n_bytes = 16 * math.prod(per_shard) + 4
            with open(path / "0" / array.metadata.encode_chunk_key(shard), "rb") as file:  # type: ignore[union-attr]
                file.seek(-n_bytes, 2)
                seen[shard] = np.frombuffer(file.read(n_bytes - 4), "<u8").reshape(*per_shard, 2)
            total += n_bytes
        total += int(seen[shard][tuple(i % n for i, n in zip(index, per_shard))][1])
    return total


def timed(fresh: Callable[[], T], read: Callable[[T, Box], object], places: list[Box]) -> np.ndarray:
    """(places, 2) milliseconds by the clock and of all CPUs, each the least of several runs; opening does not count."""
    times = np.full((len(places), 2), math.inf)
    for place, least in zip(places, times):
        for _ in range(N_RUNS):
            source = fresh()
            wall, cpu = time.perf_counter(), time.process_time()
            read(source, place)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            np.minimum(least, 1e3 * np.array(spent), out=least)
    return times


def report(table: Table, method: str, times: np.ndarray, counts: list[int]) -> None:
    """Median and worst time, mean bytes."""
    for name, column in zip(("time", "CPU time"), times.T):
        table.add("region 64^3", method, f"{name}, median", float(np.median(column)), "ms")
        table.add("region 64^3", method, f"{name}, largest", float(np.max(column)), "ms")
    table.add("region 64^3", method, "bytes read, mean", float(np.mean(counts)) / 1e3, "kB")


if __name__ == "__main__":
    main()
