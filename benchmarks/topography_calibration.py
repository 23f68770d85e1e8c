"""How well the synthetic instrument is calibrated on its flat target: poses, surface of focus, light, and the time.

    python benchmarks/topography_calibration.py [--quick] [--preset XS S] [--seeds 0 1] [--json FILE]

Start errors: 20 px rms in every translation, 5e-3 rad rms in roll, pitch and yaw. Poses are compared with the truth on
9 x 9 pixels of every view after one similarity of the mosaic; goals in brackets.

start           nothing done
stage, pairs    phase correlation of whole views, angles as they started
tilts of start  bundle whose tilts start 5e-3 rad off and not at the surface of focus
independent     bundle without priors that tie views to cameras and stage positions
default         what `calibrate` does
chain           the stages synth, ingest and calibrate from a dataset file, as `gigascope run` runs them, with the start
                that the stage positions give
chain, 20 px    the same raw store with 20 px rms added to where its stage positions put the views

C1 reprojection median [0.1 px], 95th percentile [0.3 px]; C2 rms error of the stage position of focus over dz [0.1], of
one integer slice per view beside it; C3 rms of the light that is left [1 %].
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.config.topography import SyntheticInstrument
from gigascope.topography.calibration.acquired import Acquired
from gigascope.topography.calibration.bundle import adjust
from gigascope.topography.calibration.calibrate import Settings, first_poses, focus_view, register
from gigascope.topography.calibration.calibrating import Calibrating
from gigascope.topography.calibration.compare import reprojection_errors
from gigascope.topography.calibration.flat_focus import flat_focus, plane_error
from gigascope.topography.calibration.initial import (
    overlapping_pairs,
    place_views,
    stage_translations,
)
from gigascope.topography.calibration.result import Calibration, InstrumentId
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.calibration.system import Priors
from gigascope.topography.calibration.tie_points import blocks_for, join, tie_points
from gigascope.topography.capture.bayer import pack_green, unpack_green
from gigascope.topography.geometry.poses import Poses
from gigascope.topography.instrument.instrument import Instrument
from gigascope.topography.instrument.world import Window
from gigascope.topography.synth import build_instrument

START_PX, START_RAD = 20.0, 5e-3
F64 = NDArray[np.float64]
Say = Callable[[str, str, float, str], None]


def identity_of(instrument: Instrument) -> InstrumentId:
    """What the capture says of its instrument."""
    size, optics = instrument.size, instrument.optics
    return InstrumentId(
        tuple(range(size.cameras[0])),
        tuple(range(size.cameras[1])),
        size.scan,
        (size.size, size.size),
        optics.sensor_pitch_um,
        optics.focal_length_mm(size.size),
        optics.magnification,
        stage_sign=instrument.flat_capture.stage_sign,
    )


def green(instrument: Instrument, view: int) -> NDArray:
    """(n_z, R, C) green stack of the flat target, as the raw store gives it."""
    capture = instrument.flat_capture
    stack = capture.read(*divmod(view, instrument.size.views[1]))
    return stack if capture.pattern is None else unpack_green(pack_green(stack, capture.pattern), capture.pattern)


def places(instrument: Instrument) -> F64:
    """Translations of stage and camera grid."""
    rig, size = instrument.truth.rig, instrument.size
    pixel_mm = instrument.optics.pixel_um / 1000
    step = (1 - instrument.optics.overlap) * size.size * pixel_mm
    return stage_translations(
        rig.stage_xy_mm, size.cameras, (size.scan[0] * step, size.scan[1] * step), pixel_mm, instrument.signs
    )


def measure(preset: str, seed: int, quick: bool) -> list[dict[str, object]]:
    """Figures of one instrument."""
    instrument = Instrument(preset, seed)
    identity, truth = identity_of(instrument), instrument.truth.poses
    rng = np.random.default_rng(seed)
    n, case = truth.n_views, f"{preset} seed {seed}"
    rows: list[dict[str, object]] = []

    def say(method: str, metric: str, value: float, unit: str) -> None:
        rows.append({"case": case, "method": method, "metric": metric, "value": value, "unit": unit})
        print(f"{case:12} {method:16} {metric:24} {value:10.4f} {unit}", flush=True)

    translation = places(instrument) + rng.normal(0, START_PX, (n, 2))
    slopes, angle = rng.normal(0, START_RAD, (n, 2)), rng.normal(0, START_RAD, n)
    images, planes, datum = {}, np.empty((n, 6)), []
    capture, seconds = instrument.flat_capture, 0.0
    for v in range(n):
        place = divmod(v, instrument.size.views[1])
        stack, z = green(instrument, v), capture.z_stage_mm[place]
        begun = time.perf_counter()
        focus, images[v] = focus_view(stack, z, identity)
        seconds += time.perf_counter() - begun
        planes[v] = focus.plane
        true = capture.z_flat_mm(*place)
        nearest = z[np.abs(z - np.median(true)).argmin()]
        logs = flat_focus(stack, z, method="log_parabola")
        planes_error = [plane_error(p, true) for p in (focus.plane, logs.plane)]
        datum.append([*planes_error, float(np.sqrt(np.mean((nearest - true) ** 2)))])
    rms = np.sqrt(np.mean(np.square(datum), axis=0)) / capture.dz_mm
    for method, value in zip(("default", "log-parabola", "integer slice"), rms):
        say(method, "C2 focus error / dz", value, "")
    say("default", "time focus", seconds, "s")

    start = replace(
        first_poses(identity, translation, planes, identity.layout()),
        normal=np.column_stack((slopes, np.full(n, -1.0))),
        angle=angle,
    )
    where, settings = identity.layout(), Settings()

    def judge(method: str, poses: Poses) -> None:
        error = reprojection_errors(poses, truth)
        say(method, "C1 reprojection median", float(np.median(error)), "px")
        say(method, "C1 reprojection p95", float(np.percentile(error, 95)), "px")

    judge("start", start)
    search_px = settings.search_share * identity.size[0]
    at = place_views(images.__getitem__, translation, identity.size, search_px=search_px)
    judge("stage, pairs", replace(start, translation=at))

    def solve(method: str, how: Callable[[], Calibration]) -> Calibration:
        begun = time.perf_counter()
        result = how()
        took = time.perf_counter() - begun
        judge(method, result.poses)
        say(method, "tilt error", _tilt_error(result.poses, truth), "mrad")
        say(method, "time poses and light", took, "s")
        return result

    common = (images.__getitem__, planes, identity, translation, where)
    if not quick:
        solve("tilts of start", lambda: register(*common, settings, start))
        free = Settings(priors=Priors(np.inf, np.inf, np.inf))
        solve("independent", lambda: register(*common, free, replace(start, normal=_focus_normals(identity, planes))))
    begin = replace(start, normal=_focus_normals(identity, planes))
    result = solve("default", lambda: register(*common, settings, begin))
    say("default", "tie residual median", result.statistics["median_px"], "px")
    # the true poses say what tie points alone cost
    pairs = overlapping_pairs(at, identity.size)
    ties = join(list(tie_points(images.__getitem__, pairs, result.poses, blocks_for(identity.size))))
    judge("from the truth", adjust(ties, replace(truth, offset=np.zeros(2)), where).poses)
    light = np.array([_shading(instrument, c) for c in range(len(result.gain))])
    even = evened(result, instrument)
    say("start", "C3 shading rms", 100 * float(light.std() / light.mean()), "%")
    say("default", "C3 shading rms", 100 * float(even.std() / even.mean()), "%")
    through_chain(preset, seed, say)
    return rows


def evened(found: Calibration, instrument: Instrument) -> NDArray:
    """(cameras, R, C) light of all cameras, corrected."""
    first = [int(np.flatnonzero(found.camera == c)[0]) for c in range(len(found.gain))]
    return np.array([_shading(instrument, c) * found.correction_field(v) for c, v in enumerate(first)])


def _focus_normals(identity: InstrumentId, planes: F64) -> F64:
    return first_poses(identity, np.zeros((len(planes), 2)), planes, identity.layout()).normal


def _tilt_error(poses: Poses, truth: Poses) -> float:
    slopes = [p.normal[:, :2] / -p.normal[:, 2:] for p in (poses, truth)]
    return 1000 * float(np.sqrt(np.mean((slopes[0] - slopes[1]) ** 2)))


def _shading(instrument: Instrument, camera: int) -> NDArray[np.float32]:
    n = instrument.size.size
    place = divmod(camera, instrument.size.cameras[1])
    return instrument.sensor.shading(n, place, instrument.seed, Window(0, 0, n, n))


class Displaced(Acquired):
    """An acquisition whose stage positions are off."""

    def places(self) -> F64:
        right = super().places()
        return right + np.random.default_rng(0).normal(0, START_PX, right.shape)


def through_chain(preset: str, seed: int, say: Say) -> None:
    """Figures of the calibration that the stages leave."""
    from gigascope.runtime.run import run_stage
    from gigascope.store.open import open_store

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = {"pipeline": "topography", "name": "bench", "seed": seed, "device": "cpu"}
        config = folder / "bench.yaml"
        config.write_text(json.dumps({**values, "inputs": {"instrument": {"preset": preset}}}))
        stores = {n: folder / f"{n}.zarr" for n in ("sample", "target", "truth", "raw", "calibration")}

        def run(stage: str, inputs: Sequence[str], outputs: Sequence[str]) -> float:
            begun = time.perf_counter()
            named = ({n: stores[n] for n in names} for names in (inputs, outputs))
            run_stage(f"topography.{stage}", config, *named)
            return time.perf_counter() - begun

        run("synth", (), ("sample", "target", "truth"))
        run("ingest", ("sample", "target"), ("raw",))
        seconds = run("calibrate", ("raw",), ("calibration",))
        instrument = build_instrument(SyntheticInstrument(preset=preset), seed)
        found, _ = read_calibration(open_store(stores["calibration"]))
        report("chain", found, instrument, say)
        say("chain", "time calibrate", seconds, "s")
        task = Calibrating(Displaced(open_store(stores["raw"])))
        measured = {v: task.focus(v) for v in task.views}
        images = {v: task.kept(image) for v, (_, image) in measured.items()}
        found, _ = task.solve({v: focus for v, (focus, _) in measured.items()}, images.__getitem__)
        report("chain, 20 px", found, instrument, say)


def report(method: str, found: Calibration, instrument: Instrument, say: Say) -> None:
    """C1, C2 and C3 of a calibration."""
    error = reprojection_errors(found.poses, instrument.truth.poses)
    say(method, "C1 reprojection median", float(np.median(error)), "px")
    say(method, "C1 reprojection p95", float(np.percentile(error, 95)), "px")
    capture, cols = instrument.flat_capture, instrument.size.views[1]
    apart = [plane_error(plane, capture.z_flat_mm(*divmod(v, cols))) for v, plane in enumerate(found.focus_plane)]
    say(method, "C2 focus error / dz", float(np.sqrt(np.mean(np.square(apart)))) / capture.dz_mm, "")
    even = evened(found, instrument)
    say(method, "C3 shading rms", 100 * float(even.std() / even.mean()), "%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="XS, one seed, the default method")
    parser.add_argument("--preset", nargs="+", default=["XS", "S"], help="sizes of the instrument")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the instruments")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    presets, seeds = (["XS"], [0]) if arguments.quick else (arguments.preset, arguments.seeds)
    rows = [row for preset in presets for seed in seeds for row in measure(preset, seed, arguments.quick)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
