"""A result folder in Neuroglancer, offline: the client comes with its Python package, the data from the shards.

One local server gives out the client and the files of the stores. The browser asks for byte ranges of shards, decodes
them itself and chooses the level of the pyramid that fits its screen, so a terabyte opens as fast as a megabyte and
nothing of it passes through Python's memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigascope.errors import UserError

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

# Shown when nothing else is asked for, as far as they are there: of the first pipeline whose first store is there.
DEFAULT_LAYERS = (
    ("tomogram", "aligned"),
    ("volume", "decoded", "gate"),
    ("mosaic",),
    ("cultures", "adapted", "real"),
    ("adapted", "real"),
)
# Integers that name something: drawn in colour over the images.
SEGMENTATIONS = ("gate",)
# Images that are looked at beside each other, at the same place.
SIDE_BY_SIDE = ("volume", "decoded")
_METRES = {"nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "angstrom": 1e-10, "meter": 1.0}
# About the width of one of four panels on a common screen: what the first look fits into.
_PANEL_PX = 340
# Half a turn about x: the screen then has x to the right, y up and z towards the person.
_Y_UP = [1, 0, 0, 0]
# Row 0 on top, as files of light microscopes have it; z away from the person.
_Y_DOWN = [0, 0, 0, 1]
# The same two, looked at from 30 degrees above and 30 degrees to the side.
_OBLIQUE = {"up": [0.933, -0.067, 0.25, 0.25], "down": [-0.25, 0.25, 0.067, 0.933]}
# Heights from dark blue (low) to yellow (high), as the relief of the report has them; what is unseen shows through.
_VIRIDIS = (
    "vec3(0.267,0.004,0.329)", "vec3(0.278,0.173,0.478)", "vec3(0.231,0.318,0.545)", "vec3(0.173,0.443,0.557)",
    "vec3(0.129,0.565,0.553)", "vec3(0.153,0.678,0.506)", "vec3(0.361,0.784,0.388)", "vec3(0.667,0.863,0.196)",
    "vec3(0.992,0.906,0.145)",
)  # fmt: skip
_HEIGHT_SHADER = (
    "#uicontrol invlerp normalized(channel=[{channel}])\n"
    f"const vec3 stops[9] = vec3[9]({', '.join(_VIRIDIS)});\n"
    "void main() {{\n"
    "  float value = toRaw(getDataValue({channel}));\n"
    "  if (!(abs(value) < 1e30)) {{ emitTransparent(); return; }}\n"
    "  float place = clamp(normalized(), 0.0, 1.0) * 8.0;\n"
    "  int low = min(int(place), 7);\n"
    "  emitRGB(mix(stops[low], stops[low + 1], place - float(low)));\n"
    "}}\n"
)
_COLOUR_SHADER = (
    "#uicontrol float brightness slider(min=0.2, max=5, default=1)\n"
    "void main() {{\n"
    "  vec3 seen = vec3({values}) * brightness / {white};\n"
    "  if (!(abs(seen.r) < 1e30)) {{ emitTransparent(); return; }}\n"
    "  emitRGB(seen);\n"
    "}}\n"
)
_SHADER = "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }\n"


@dataclass
class Viewer:
    """A served result.

    Attributes
    ----------
    url : to be opened in a browser
    layers : names of what is shown
    neuroglancer : the viewer of the `neuroglancer` package: its state can be read and changed from here
    """

    url: str
    layers: list[str]
    neuroglancer: Any

    def screenshot(self, path: Path, size: tuple[int, int] = (1600, 900), timeout_s: float = 60.0) -> None:
        """Write what a browser shows once all visible chunks are there, as PNG; starts a headless Chromium for it.

        Raises
        ------
        UserError : no Chromium, or it showed nothing in time
        """
        from gigascope.report.browser import headless

        with headless(self.url, (size[0], size[1] + 150)):
            path.write_bytes(_rendered(self.neuroglancer, size, timeout_s))


def serve(folder: Path | str, layers: Sequence[str] | None = None, bind: str = "127.0.0.1", port: int = 0) -> Viewer:
    """Serve the stores of a result folder, in the background, until the process ends.

    Parameters
    ----------
    folder : results folder of a dataset, or one store
    layers : stores to show, by name without `.zarr`; `cultures/s0003` is one image of a store of many, of which
        else the first is shown; default: tomogram and aligned views, or volume, decoded volume and gate, or the mosaic,
        or cultures with adapted and real images, or all where these are not there
    bind, port : address to serve on; port 0: a free one

    Raises
    ------
    UserError : no such folder or store, a store that is unfinished, an address that is taken
    """
    root, names = _choose(Path(folder), layers)
    stores = dict(_image(root, name) for name in names)
    stores = {name: store for name, store in stores.items() if store.has_image}
    if not stores:
        raise UserError("holds no images to show.", where=folder)
    viewer, base = _start(root, bind, port)
    viewer.set_state(
        state({n: (store, f"{base}/{store.path.relative_to(root).as_posix()}") for n, store in stores.items()})
    )
    return Viewer(viewer.get_viewer_url(), list(stores), viewer)


def view_forever(
    folder: Path | str,
    *,
    layers: Sequence[str] | None = None,
    bind: str = "127.0.0.1",
    port: int = 0,
    browser: bool = True,
    screenshot: Path | None = None,
) -> None:
    """Serve, print the address and wait for Ctrl-C; or write a screenshot and return."""
    viewer = serve(folder, layers, bind, port)
    if screenshot is not None:
        viewer.screenshot(screenshot)
        print(f"{screenshot}: {', '.join(viewer.layers)} of {folder}")
        return
    print(f"{', '.join(viewer.layers)} of {folder}:\n  {viewer.url}\nCtrl-C ends it.", flush=True)
    if bind == "127.0.0.1":
        number = viewer.url.split(":")[2].split("/")[0]
        print(
            f"From another computer: ssh -L {number}:127.0.0.1:{number} THIS_MACHINE, then open the same address.",
            flush=True,
        )
    if browser:
        import webbrowser

        webbrowser.open(viewer.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


def state(stores: dict[str, tuple[StoreReader, str]]) -> dict[str, Any]:
    """What Neuroglancer shows: a layer per store, its centre at the origin; volumes in four panels, views in one each.

    Original and decoded volume stand side by side; label images lie over both. A mosaic has a panel for its colours and
    one for its heights.

    Parameters
    ----------
    stores : by name, each with the address of its folder
    """
    volumes = [name for name, (store, _) in stores.items() if "z" in store.axes]
    dimensions: dict[str, list[Any]] = {}
    position: dict[str, float] = {}
    for store, _ in stores.values():
        for axis, n in zip(store.axes, store.shape):
            if axis != "c" and axis not in dimensions:
                dimensions[axis] = _unit(store, axis)
                position[axis] = 0.0 if axis in "zyx" else n // 2 + 0.5
    # the first three are those on the screen
    order = sorted(dimensions, key=lambda axis: "xyz".find(axis) % 4)
    extents = [store.shape[store.axes.index(a)] for store, _ in stores.values() for a in "xy" if a in store.axes]
    up = any(_y_up(store) for store, _ in stores.values())
    images = [name for name in volumes if name not in SEGMENTATIONS]
    compared = all(name in volumes for name in SIDE_BY_SIDE)
    layers = [layer for name, (store, address) in stores.items() for layer in _layers(name, store, address)]
    volumes += [x["name"] for x in layers if x["type"] == "segmentation" and x["name"] not in stores]
    groups = _groups(volumes, [x["name"] for x in layers if x["name"] not in volumes], compared, up)
    # volumes lie over each other: the others are a click away
    first = set(SIDE_BY_SIDE if compared else images[:1])
    over = {f"{name} {stores[name][0].labels[0]}" for name in images[:1] if stores[name][0].labels}
    shown = first | over | {x["name"] for x in layers if x["name"] not in volumes or x["name"] in SEGMENTATIONS}
    return {
        "dimensions": {axis: dimensions[axis] for axis in order},
        "position": [position[axis] for axis in order],
        "crossSectionOrientation": _Y_UP if up else _Y_DOWN,
        "crossSectionScale": max(extents) / _PANEL_PX,
        "projectionOrientation": _OBLIQUE["up" if up else "down"],
        "projectionScale": 1.6 * max(extents),
        "layers": [{**layer, "visible": layer["name"] in shown} for layer in layers],
        "layout": groups[0] if len(groups) == 1 else {"type": "row", "children": groups},
        "showSlices": True,
        "crossSectionBackgroundColor": "#16191d",
        "title": ", ".join(stores),
    }


def _image(root: Path, name: str) -> tuple[str, StoreReader]:
    """Name and image of a store; of a store of many images the one that is named, or the first."""
    from gigascope.store.open import open_store

    of_many, _, wanted = name.partition("/")
    store = open_store(root / f"{of_many}.zarr")
    if not store.images and not wanted:
        return name, store
    wanted = wanted or store.images[0]
    return f"{of_many}/{wanted}", store.image(wanted)


def _groups(volumes: Sequence[str], stacks: Sequence[str], compared: bool, up: bool) -> list[dict[str, Any]]:
    """Panels beside each other: the volumes, or two of them each with the rest, then every stack of views."""
    rest = [name for name in volumes if name not in SIDE_BY_SIDE]
    together = [[name, *rest] for name in SIDE_BY_SIDE] if compared else [volumes] if volumes else []
    groups: list[dict[str, Any]] = [
        {"type": "viewer", "layers": list(names), "layout": "4panel", "flex": 2} for names in together
    ]
    for name in stacks:
        groups.append({
            "type": "viewer", "layers": [name], "layout": "xy",
            "displayDimensions": {"link": "unlinked", "value": ["x", "y"]},
            "crossSectionOrientation": {"link": "unlinked", "value": _Y_UP if up else _Y_DOWN},
        })  # fmt: skip
    return groups


def _y_up(store: StoreReader) -> bool:
    """Row 0 is the bottom of the picture: so it is in tomography, and nowhere else."""
    return str(store.provenance.get("stage", "tomography.")).startswith("tomography.")


def _layers(name: str, store: StoreReader, address: str) -> list[dict[str, Any]]:
    """The layers of a store: of a mosaic its colours and its heights, of others one, and one for each label image."""
    plain = _layer(name, store, address)
    labels = [channel["label"] for channel in store.channels]
    if "height" not in labels:
        return [plain, *(_label_layer(name, label, store, address) for label in store.labels)]
    # all channels of a pixel at once: those of a mosaic lie in one chunk
    dimensions = plain["source"]["transform"]["outputDimensions"]
    dimensions = {"c^" if axis == "c'" else axis: size for axis, size in dimensions.items()}
    source = {**plain["source"], "transform": {**plain["source"]["transform"], "outputDimensions": dimensions}}
    height = labels.index("height")
    place = [0, 1, 2] if labels[:3] == ["red", "green", "blue"] else [0, 0, 0]
    values = ", ".join(f"toRaw(getDataValue({channel}))" for channel in place)
    common = {**plain, "source": source}
    window = store.channels[height]["window"]
    control = {"range": [window["start"], window["end"]], "window": [window["min"], window["max"]], "channel": [height]}
    colours = _COLOUR_SHADER.format(values=values, white=float(store.channels[0]["window"]["end"]))
    return [
        {**common, "shader": colours, "shaderControls": {}},
        {
            **common,
            "name": f"{name} height",
            "shader": _HEIGHT_SHADER.format(channel=height),
            "shaderControls": {"normalized": control},
        },
    ]


def _layer(name: str, store: StoreReader, address: str) -> dict[str, Any]:
    """An image layer with its window; its middle is moved to the origin, so that views and volume share one place."""
    # a pixel reaches from its index to the next: the middle of n of them is at n / 2
    middle = [-n / 2 if axis in "zyx" else 0.0 for axis, n in zip(store.axes, store.shape)]
    rank = len(middle)
    matrix = [[float(i == j) for j in range(rank)] + [middle[i]] for i in range(rank)]
    names = ["c'" if axis == "c" else axis for axis in store.axes]
    source = {
        "url": f"{address}/|zarr3:",
        "transform": {
            "outputDimensions": {n: _unit(store, axis) for n, axis in zip(names, store.axes)},
            "matrix": matrix,
        },
    }
    if name in SEGMENTATIONS:
        return {"type": "segmentation", "name": name, "source": source, "segments": ["1"], "selectedAlpha": 0.25}
    low, high = store.window
    least, most = store.statistics.get("min"), store.statistics.get("max")
    whole = [low if least is None else min(least, low), high if most is None else max(most, high)]
    return {
        "type": "image",
        "name": name,
        "source": source,
        "shader": _SHADER,
        "shaderControls": {"normalized": {"range": [low, high], "window": whole}},
        "opacity": 1,
        "blend": "default",
    }


def _label_layer(name: str, label: str, store: StoreReader, address: str) -> dict[str, Any]:
    """A label image in colour over its image, every object in its own."""
    plain = _layer(name, store, address)
    kept = [i for i, axis in enumerate(store.axes) if axis != "c"]
    transform = plain["source"]["transform"]
    source = {
        "url": f"{address}/labels/{label}/|zarr3:",
        "transform": {
            "outputDimensions": {store.axes[i]: transform["outputDimensions"][store.axes[i]] for i in kept},
            "matrix": [[*(transform["matrix"][i][j] for j in kept), transform["matrix"][i][-1]] for i in kept],
        },
    }
    return {"type": "segmentation", "name": f"{name} {label}", "source": source, "selectedAlpha": 0.25}


def _unit(store: StoreReader, axis: str) -> list[Any]:
    """Size of a step and its SI unit, as Neuroglancer takes them; none for what is counted (views, channels)."""
    if axis in "zyx" and axis in store.spacing and store.unit in _METRES:
        # 12 digits: 1.5 times 1e-9 is not 1.5e-9 in binary, and steps of two layers are compared
        return [float(f"{store.spacing[axis] * _METRES[store.unit]:.12g}"), "m"]
    return [1, ""]


def _choose(folder: Path, layers: Sequence[str] | None) -> tuple[Path, list[str]]:
    """Folder and names of the stores to show."""
    if folder.name == "zarr.json":
        folder = folder.parent
    if folder.suffix == ".zarr":
        return folder.parent, [folder.stem]
    if folder.parent.suffix == ".zarr":
        return folder.parent.parent, [f"{folder.parent.stem}/{folder.name}"]
    if not folder.is_dir():
        raise UserError(
            "there is no such results folder.", where=folder, do="Give the folder of a dataset, such as results/demo."
        )
    there = sorted(path.parent.stem for path in folder.glob("*.zarr/zarr.json"))
    if not there:
        raise UserError(
            "holds no finished store.", where=folder, do="Give the folder of a dataset, such as results/demo."
        )
    if layers is None:
        wanted = next((names for names in DEFAULT_LAYERS if names[0] in there), ())
        return folder, [name for name in wanted if name in there] or there
    for name in layers:
        if name.partition("/")[0] not in there:
            raise UserError(f"holds no store {name}.", where=folder, do=f"Stores: {', '.join(there)}.")
    return folder, list(layers)


def _start(root: Path, bind: str, port: int) -> tuple[Any, str]:
    """Neuroglancer's own server, with the files of `root` beside its client; returns a viewer and their address."""
    import neuroglancer
    import neuroglancer.server

    from gigascope.report.files import RangeHandler

    neuroglancer.set_server_bind_address(bind, port)
    try:
        viewer = neuroglancer.Viewer()
    except OSError as error:
        raise UserError(
            f"cannot be served on: {error.strerror or error}.", where=f"{bind}:{port}", do="Choose another --port."
        ) from error
    server = neuroglancer.server.global_server
    # below the viewer's secret token, like the client itself
    prefix = f"/data/{viewer.token}"
    server.app.add_handlers(r".*", [(rf"{prefix}/(.*)", RangeHandler, {"path": str(root.resolve())})])
    return viewer, f"{server.server_url}{prefix}"


def _rendered(viewer: Any, size: tuple[int, int], timeout_s: float) -> bytes:
    """The canvas at a given size as PNG, when everything visible was loaded."""
    import threading

    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.show_panel_borders = False
        config.viewer_size = list(size)
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        done = threading.Event()
        answers: list[Any] = []

        def take(answer: Any, answers: list[Any] = answers, done: threading.Event = done) -> None:
            answers.append(answer.screenshot)
            done.set()

        viewer.async_screenshot(take)
        # the first answer after a change of size may still have the old one
        if done.wait(left) and (answers[0].width, answers[0].height) == size:
            image: bytes = answers[0].image
            return image
    raise UserError(
        f"the browser showed nothing within {timeout_s:.0f} s.", do="Try again, or open the address by hand."
    )
