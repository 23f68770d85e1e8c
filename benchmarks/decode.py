"""Speed of decoding a compressed volume: all of it, and a region of interest beside the same region of an OME-Zarr.

    python benchmarks/decode.py [--edge 1024] [--quick] [--device auto|cpu|cuda] [--folder DIR] [--json FILE]

The volume is synthetic and cubic: Gaussians as dense as a neuron volume has them, one per 1,000 voxels, spread evenly,
which is the hardest case for random access, with the scales and amplitudes of fits. It is written as a compact file.
A full decode makes every voxel in the dtype of the file, box by box, without writing them.

A region is 64^3 voxels at a random place, decoded after opening by a decoder that has kept nothing; times are the
median and the largest of 25 places. The OME-Zarr beside it holds the same voxels with noise, in the house's chunks of
64^3 under blosc-zstd; only the shards that the places touch are written. Files are in the page cache in both cases.
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
from typing import Any

import numpy as np
import torch
import zarr

from gigascope.compression.container import Gmix, Header, Intensity, write_compact
from gigascope.compression.decode import Decoder, to_dtype
from gigascope.compression.index import BrickPlaces
from gigascope.compression.indexing import Box, block_shape, boxes
from gigascope.compression.mixture import Mixture
from gigascope.compression.quantiser import Quantiser
from gigascope.runtime.device import choose_device, describe
from gigascope.store.create import create_image, plan_of

VOXELS_PER_GAUSSIAN = 1000
# of fits of the bench volume: standard deviations along the own axes, voxels; amplitudes in units of the range
SIGMA = (0.7, 3.5)
AMPLITUDE = (0.01, 0.6)
NEGATIVE = 0.15
SCALE, OFFSET, EPS, NOISE = 3500.0, 100.0, 1e-3, 14.0
ROI = 64
N_PLACES = 25


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
        quantiser=Quantiser(adaptive=True, theta=1e-4),
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
        columns = (
            rng.uniform(0, 1, (n, 3)) * shape - 0.5,
            rng.uniform(*np.log(SIGMA), (n, 3)),
            rng.normal(size=(n, 4)),
            signs * np.exp(rng.uniform(*np.log(AMPLITUDE), n)),
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
    to_dtype(Decoder(gmix, device).region(0, places[0]), gmix.header.dtype)
    counts, touched = [], []

    def read(place: Box) -> None:
        before = gmix.bytes_read
        to_dtype(Decoder(gmix, device).region(0, place), gmix.header.dtype)
        counts.append(gmix.bytes_read - before)

    times = timed(read, places[1:])
    for place in places[1:]:
        touched.append(len(gmix.touching(0, place)))
    report(table, "compressed", times, counts)
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
    array = zarr.open_group(path, mode="r")["0"]
    array[places[0]]  # type: ignore[index]
    times = timed(lambda place: array[place], places[1:])  # type: ignore[index]
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


def timed(read: Callable[[Box], object], places: list[Box]) -> list[float]:
    """Milliseconds of each."""
    times = []
    for place in places:
        begun = time.perf_counter()
        read(place)
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def report(table: Table, method: str, times: list[float], counts: list[int]) -> None:
    """Median and worst time, mean bytes."""
    table.add("region 64^3", method, "time, median", float(np.median(times)), "ms")
    table.add("region 64^3", method, "time, largest", float(np.max(times)), "ms")
    table.add("region 64^3", method, "bytes read, mean", float(np.mean(counts)) / 1e3, "kB")


if __name__ == "__main__":
    main()
