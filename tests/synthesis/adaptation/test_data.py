"""Crops for the training: which, how many with nuclei, the same ones always, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gigascope.errors import UserError
from gigascope.synthesis.adaptation.domain import Domain, check_domains
from gigascope.synthesis.adaptation.loader import Loader, Loading
from gigascope.synthesis.adaptation.mapping import Mapping, grey
from gigascope.synthesis.adaptation.sampler import Sampler, Spot
from gigascope.synthesis.adaptation.segmenter import targets_of
from gigascope.synthesis.adaptation.survey import Survey, background_threshold, survey

from .ensembles import nuclei, simulated, write_domains, write_ensemble

CROP = (8, 24, 24)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Domain, Domain]:
    folder = write_domains(tmp_path_factory.mktemp("domains"), np.random.default_rng(5))
    return Domain.open(folder / "real.zarr"), Domain.open(folder / "cultures.zarr", labelled=True)


def samplers(domains: tuple[Domain, Domain], batch: int = 2, seed: int = 1, **more: object) -> tuple[Sampler, Sampler]:
    found = []
    for name, domain in zip("ab", domains):
        looked = survey(domain, CROP, by_labels=name == "b")
        shapes = [volume.shape for volume in domain.volumes]
        found.append(Sampler(shapes, looked, CROP, batch, seed, name, every=name == "b", foreground=0.8, **more))
    return found[0], found[1]


def loader(domains: tuple[Domain, Domain], **more: object) -> Loader:
    found = samplers(domains)
    options = {"targets": True, **more}
    loading = options.pop("loading", Loading())
    return Loader(*domains, found, (Mapping(0, 300), Mapping(0, 1200)), loading, **options)


def test_survey_counts_every_voxel_once(domains: tuple[Domain, Domain]) -> None:
    cultures = domains[1]
    found = survey(cultures, (7, 20, 13), by_labels=True)
    images, labels = zip(*((v.image[:], v.labels[:]) for v in cultures.volumes))
    np.testing.assert_array_equal(found.histogram, np.bincount(np.ravel(images), minlength=65536))
    assert found.cell == (1, 5, 3)
    for counts, label in zip(found.foreground, labels):
        assert counts.sum() == (label > 0).sum()
        assert counts[3, 2, 4] == (label[3:4, 10:15, 12:15] > 0).sum()
    assert found.percentile(50) == np.sort(np.ravel(images))[(np.size(images) + 1) // 2 - 1]


def test_survey_of_pieces_that_cut_cells(rng: np.random.Generator, tmp_path: Path) -> None:
    """Chunks of 64 and cells of 5: a cell lies in two pieces."""
    labels = nuclei(rng, (70, 300, 40), 60)
    domain = Domain.open(write_ensemble(tmp_path / "a.zarr", [simulated(rng, labels)], [labels]))
    found = survey(domain, (20, 28, 20), by_labels=True)
    assert found.cell == (5, 7, 5)
    padded = np.pad(labels > 0, ((0, 0), (0, -300 % 7), (0, 0)))
    np.testing.assert_array_equal(found.foreground[0], padded.reshape(14, 5, -1, 7, 8, 5).sum((1, 3, 5)))


def test_threshold_parts_background_from_nuclei(domains: tuple[Domain, Domain]) -> None:
    found = survey(domains[0], CROP, by_labels=False)
    assert found.threshold is not None
    assert 25 < found.threshold < 180
    two = np.zeros(65536, np.int64)
    two[[10, 1000]] = 5
    assert 10 <= background_threshold(two) < 1000


def test_most_crops_hold_nuclei(domains: tuple[Domain, Domain], rng: np.random.Generator, tmp_path: Path) -> None:
    """At least 80 % hold at least 1 %, though most of the image is empty."""
    labels = np.zeros((40, 256, 256), np.uint32)
    labels[10:20, 100:130, 60:90] = 1
    domain = Domain.open(write_ensemble(tmp_path / "a.zarr", [simulated(rng, labels)], [labels]))
    looked = survey(domain, CROP, by_labels=True)
    shares = {}
    for wanted in (0.0, 0.8):
        sampler = Sampler([labels.shape], looked, CROP, 1, 3, "b", every=True, foreground=wanted)
        spots = [sampler.at(step)[0] for step in range(300)]
        inside = np.array([(labels[s.region(CROP)] > 0).mean() for s in spots])
        assert all(sampler.share(s) <= i + 1e-12 for s, i in zip(spots, inside))
        shares[wanted] = float((inside >= 0.01).mean())
    print(shares)
    assert shares[0.0] < 0.2
    assert shares[0.8] >= 0.8 - 2 * np.sqrt(0.8 * 0.2 / 300)


def test_crops_reach_the_first_and_the_last_voxel() -> None:
    """Also a crop of the size of the image: the published program knows neither."""
    nothing = Survey(np.zeros(65536, np.int64), None, (2, 2, 2), (np.zeros((5, 5, 5), np.int64),))
    sampler = Sampler([(10, 10, 10)], nothing, (9, 9, 10), 1, 0, "a", every=False, foreground=0.8)
    corners = {sampler.at(step)[0].corner for step in range(60)}
    assert corners == {(z, y, 0) for z in (0, 1) for y in (0, 1)}


def test_every_simulated_image_comes_once_in_each_round(domains: tuple[Domain, Domain]) -> None:
    _, b = samplers(domains, batch=1)
    seen = [b.at(step)[0].volume for step in range(40)]
    assert all(sorted(seen[k : k + 2]) == [0, 1] for k in range(0, 40, 2))
    assert len({tuple(seen[k : k + 2]) for k in range(0, 40, 2)}) == 2


@pytest.mark.parametrize(("turns", "ways"), [("all", 8), ("one", 4)])
def test_crops_are_turned(domains: tuple[Domain, Domain], rng: np.random.Generator, turns: str, ways: int) -> None:
    a, _ = samplers(domains, batch=1, turns=turns)
    block = rng.random((2, 5, 5))
    spots = [a.at(step)[0] for step in range(200)]
    assert len({s.turned(block).tobytes() for s in spots}) == ways
    same = np.mean([np.array_equal(s.turned(block), block) for s in spots])
    assert abs(same - (1 / 8 if turns == "all" else 0.5)) < 0.12
    # z is never turned over
    assert all(np.array_equal(np.sort(s.turned(block)[0].ravel()), np.sort(block[0].ravel())) for s in spots)


def test_crops_that_are_not_square_are_not_turned_by_a_quarter(domains: tuple[Domain, Domain]) -> None:
    a, _ = samplers(domains, batch=1, square=False)
    assert {a.at(step)[0].turn for step in range(50)} == {0, 2}
    assert Spot(0, (0, 0, 0), 1, True, False).turned(np.zeros((2, 3, 4))).shape == (2, 4, 3)


def test_batches_are_a_function_of_the_step(domains: tuple[Domain, Domain]) -> None:
    """Whatever is read ahead, by how many threads, from which step on, and by how many processes."""
    with loader(domains) as first, loader(domains, loading=Loading(ahead=1, threads=1)) as other:
        batches = [first(step) for step in range(4)]
        for step in (2, 0, 3):
            again = other(step)
            for name in ("a", "b"):
                assert torch.equal(getattr(batches[step], name).image, getattr(again, name).image)
                assert torch.equal(getattr(batches[step], name).depth, getattr(again, name).depth)
            assert again.b.targets is not None
            assert batches[step].b.targets is not None
            assert torch.equal(batches[step].b.targets.distance, again.b.targets.distance)
    halves = []
    for rank in range(2):
        with loader(domains, rank=rank, ranks=2) as part:
            halves.append(part(1).b.image)
    assert torch.equal(torch.cat(halves), batches[1].b.image)


def test_a_batch_holds_what_the_store_has(domains: tuple[Domain, Domain]) -> None:
    with loader(domains) as reading:
        batch, spots = reading(3), samplers(domains)[1].at(3)
    for k, spot in enumerate(spots):
        volume = domains[1].volumes[spot.volume]
        values = spot.turned(volume.image[:][spot.region(CROP)]).astype(float)
        np.testing.assert_allclose(batch.b.image[k, 0], np.clip(values / 600 - 1, -1, 1), atol=1e-6)
        labels = spot.turned(volume.labels[:][spot.region(CROP)])
        np.testing.assert_array_equal(batch.b.targets.foreground[k, 0], labels > 0)
        z = np.arange(spot.corner[0], spot.corner[0] + CROP[0])
        np.testing.assert_allclose(batch.b.depth[k, 0, :, 0, 0], (z + 0.5) / 16 * 2 - 1, atol=1e-6)


def test_memory_read_ahead_is_bounded_and_time_is_kept(domains: tuple[Domain, Domain]) -> None:
    one = 2 * 8 * 24 * 24 * (2 * 4 + 12)
    with loader(domains, loading=Loading(ahead=50, budget_bytes=3 * one + 5, threads=2), last=10) as reading:
        assert reading.ahead == 3
        for step in range(10):
            reading(step)
        stats = reading.stats
    assert stats.peak_bytes == 3 * one
    assert [b.step for b in stats.batches] == list(range(10))
    assert all(0 <= b.wait_s <= b.total_s for b in stats.batches)
    assert 0 <= stats.wait_share <= 1
    assert all(b.bytes_read >= b.bytes_used > 0 for b in stats.batches)
    with pytest.raises(UserError, match=r"a batch takes 0\.2 MB, 0\.1 MB may be read"):
        loader(domains, loading=Loading(budget_bytes=10**5))


def test_grey_values_go_there_and_back(rng: np.random.Generator) -> None:
    mapping = Mapping(100, 1100)
    values = rng.integers(100, 1101, (3, 4, 5)).astype(np.uint16)
    np.testing.assert_array_equal(grey(mapping.invert(torch.from_numpy(mapping.apply(values)))), values)
    assert mapping.apply(np.array([0, 100, 600, 1100, 65535], np.uint16)).tolist() == [-1, -1, 0, 1, 1]
    # generators that add to the image are shown more, and broken pixels still not
    wide = Mapping(100, 1100, 4.0)
    assert wide.apply(np.array([0, 1100, 2100, 65535], np.uint16)).tolist() == pytest.approx([-1.2, 1, 3, 4])
    full = grey(mapping.invert(torch.tensor([-1.0, 0.0, 1.0]), "full"))
    assert full.tolist() == [0, 32768, 65535]
    with pytest.raises(UserError, match="cannot be told apart"):
        Mapping(5, 5)


def test_targets_say_how_near_the_centre_a_voxel_is() -> None:
    labels = np.zeros((7, 12, 12), np.uint16)
    labels[2:5, 3:8, 3:8] = 7
    labels[0:2, 9:12, 9:12] = 900
    inside, distance, known = targets_of(labels, (1.5, 0.5, 0.5))
    np.testing.assert_array_equal(inside, labels > 0)
    assert distance[3, 5, 5] == pytest.approx(1)
    assert distance[2, 3, 3] == pytest.approx(0)
    # in micrometres: one slice is as far as three rows
    assert distance[2, 5, 5] == pytest.approx(1 - 1.5 / np.sqrt(1.5**2 + 1 + 1))
    # the second one goes on beyond the border
    assert (known[labels == 7] == 1).all()
    assert (known[labels == 900] == 0).all()
    assert (known[labels == 0] == 1).all()


# bad input


def write_one(folder: Path, rng: np.random.Generator, **more: object) -> Domain:
    shape = more.pop("shape", (16, 48, 48))
    images = [rng.integers(0, 200, shape).astype(more.pop("dtype", np.uint16))]
    return Domain.open(write_ensemble(folder, images, **more))


def test_domains_of_other_voxels_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    real, cultures = (
        write_one(tmp_path / f"{name}.zarr", rng, spacing={"z": 1.5, "y": edge, "x": edge})
        for name, edge in (("real", 0.4), ("cultures", 0.5))
    )
    with pytest.raises(UserError, match=r"real.zarr.*1\.5 x 0\.4 x 0\.4 micrometres, the simulated images of"):
        check_domains(real, cultures, CROP, (4, 4, 4))


def test_crops_that_do_not_fit_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    real, cultures = (write_one(tmp_path / f"{name}.zarr", rng) for name in ("real", "cultures"))
    check_domains(real, cultures, (8, 24, 24), (4, 4, 4))
    with pytest.raises(UserError, match=r"s0000 has 16 x 48 x 48 voxels, a crop 20 x 24 x 24. Set train.crop to"):
        check_domains(real, cultures, (20, 24, 24), (4, 4, 4))
    with pytest.raises(UserError, match="holds 1 separate crops of 16 x 40 x 40 voxels; 4 are needed"):
        check_domains(real, cultures, (16, 40, 40), (4, 4, 4))
    with pytest.raises(UserError, match="crops of 8 x 24 x 24 voxels are too small: a discriminator sees 10 x 24 x 24"):
        check_domains(real, cultures, (8, 24, 24), (10, 24, 24))


def test_images_that_cannot_be_trained_on_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds float32; the adaptation takes images of 8 or 16 bits"):
        write_one(tmp_path / "a.zarr", rng, dtype=np.float32)
    with pytest.raises(UserError, match="has 2 channels"):
        write_one(tmp_path / "b.zarr", rng, shape=(2, 8, 9, 9), axes=("c", "z", "y", "x"))
    with pytest.raises(UserError, match="says nothing of its voxel size along z"):
        write_one(tmp_path / "c.zarr", rng, spacing={"y": 1.0, "x": 1.0})
    images = [rng.integers(0, 200, (8, 9, 9)).astype(dtype) for dtype in (np.uint8, np.uint16)]
    with pytest.raises(UserError, match="has images of uint16 and uint8"):
        Domain.open(write_ensemble(tmp_path / "d.zarr", images))
    with pytest.raises(UserError, match="has no labels `nuclei`"):
        Domain.open(write_ensemble(tmp_path / "e.zarr", images[:1]), labelled=True)


def test_one_channel_is_as_none(rng: np.random.Generator, tmp_path: Path) -> None:
    image = rng.integers(0, 200, (1, 8, 9, 10)).astype(np.uint8)
    domain = Domain.open(write_ensemble(tmp_path / "a.zarr", [image], axes=("c", "z", "y", "x")))
    region = (slice(1, 5), slice(2, 3), slice(0, 10))
    np.testing.assert_array_equal(domain.volumes[0].read(region), image[0][region])
    assert replace(domain.volumes[0]).shape == (8, 9, 10)
