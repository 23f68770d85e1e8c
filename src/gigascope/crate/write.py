"""`gigascope crate`: find what belongs to a result, describe it, and write the crate in place, as a folder or a zip."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from gigascope.config.dataset import Dataset, load_dataset, read_yaml
from gigascope.crate.graph import WORKFLOW, crate_of
from gigascope.crate.preview import preview_html
from gigascope.crate.runs import Run, runs_of
from gigascope.crate.words import About
from gigascope.errors import UserError
from gigascope.runtime.memory import human_bytes
from gigascope.workflow import RunConfig
from gigascope.workflow_files import dataset_files

METADATA = "ro-crate-metadata.json"
PREVIEW = "ro-crate-preview.html"
# Larger files are not taken into a light crate.
LIGHT_BYTES = 32 * 2**20
# Of the checkout, what is needed to run the workflow, where it is there.
KIT = ("workflow/**/*", "envs/*.yaml", "requirements.lock", "config/config.yaml", "LICENSE", "CITATION.cff")
_AGENT = re.compile(r"\s*(\S[^<>]*\S)\s*<(https?://[^<>\s]+)>\s*")


def write_crate(
    folder: Path, out: Path | None, *, config: Path, yaml: Path | None = None, licence: str, agent: str | None = None
) -> list[str]:
    """Write the RO-Crate of a finished dataset.

    Parameters
    ----------
    folder : of the result
    out : a zip file or a folder, neither of which is there, for a crate without stores; none: the result becomes one
    config : Snakemake's config file; its checkout is where the Snakefile is
    yaml : of the dataset; none: it is looked for among those of `config`, and then beside it
    licence : of the data, an address or a sentence
    agent : who ran it, as `Name <address>`

    Returns
    -------
    lines for the terminal

    Raises
    ------
    UserError : no result, one that is not finished or not up to date, an output that is in the way
    """
    if not folder.is_dir():
        raise UserError("there is no such result.", where=folder, do="Give results/NAME.")
    if out is not None and (out.exists() or out.is_symlink()):
        raise UserError("is there already.", where=out, do="Remove it, or give another name.")
    about = About(licence, _agent(agent), datetime.now(UTC))
    root = config.parent.parent
    path, dataset = _dataset(folder.absolute().name, config, yaml)
    kit = _kit(root, path)
    runs = runs_of(folder, dataset, root)
    held = _held(folder, runs, LIGHT_BYTES if out is not None else None)
    crate = crate_of(dataset, runs, kit, held, _inside(path, root), about)
    texts = {
        METADATA: json.dumps(crate.metadata.generate(), indent=2, ensure_ascii=False) + "\n",
        PREVIEW: preview_html(dataset, runs, about),
    }
    try:
        if out is None:
            _into(folder, kit, texts)
        else:
            _light(out, {**kit, **held}, texts)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}.", where=error.filename or out or folder) from None
    return _summary(folder, out, runs)


def _agent(given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    found = _AGENT.fullmatch(given)
    if found is None:
        do = "Write for example 'Ada Lovelace <https://orcid.org/0000-0001-2345-6789>'."
        raise UserError(f"{given!r} is not NAME <ADDRESS>.", where="--agent", do=do)
    return found[1], found[2]


# what belongs to it


def _dataset(name: str, config: Path, yaml: Path | None) -> tuple[Path, Dataset]:
    """The YAML of a dataset, by its name."""
    if yaml is not None:
        dataset = load_dataset(yaml)
        if dataset.name != name:
            raise UserError(f"is the dataset {dataset.name}, not {name}.", where=yaml, do="Give that of this result.")
        return yaml, dataset
    for path in _candidates(config):
        # Another dataset's YAML may be half-written: that is no matter here.
        with contextlib.suppress(UserError):
            if read_yaml(path, do="")[0].get("name") == name:
                break
    else:
        do = f"Give its YAML with --dataset FILE; a dataset named {name} stands neither in {config} nor beside it."
        raise UserError("no dataset is known that this is the result of.", where=name, do=do)
    return path, load_dataset(path)


def _candidates(config: Path) -> Iterator[Path]:
    values, _ = read_yaml(config, do="Work in the folder of the Snakefile, or give --config FILE.")
    root = config.parent.parent
    patterns = RunConfig.of(values).datasets
    with contextlib.suppress(UserError):
        yield from dataset_files(tuple(str(root / p) for p in ([patterns] if isinstance(patterns, str) else patterns)))
    yield from sorted((config.parent / "datasets").rglob("*.yaml"))


def _kit(root: Path, yaml: Path) -> dict[str, Path]:
    """The files of the workflow, by their path in the crate."""
    snakefile = root / "Snakefile"
    if not snakefile.is_file():
        raise UserError("there is no Snakefile here.", where=root, do="Work in its folder, or give --config FILE.")
    found = sorted(path for pattern in KIT for path in root.glob(pattern) if path.is_file())
    return {f"{WORKFLOW}/{path.relative_to(root).as_posix()}": path for path in (snakefile, *found)} | {
        _inside(yaml, root): yaml
    }


def _inside(yaml: Path, root: Path) -> str:
    """Path of a dataset's YAML in the crate: that of the checkout where it lies in it."""
    here = yaml.absolute()
    if here.is_relative_to(root.absolute()):
        return f"{WORKFLOW}/{here.relative_to(root.absolute()).as_posix()}"
    return f"{WORKFLOW}/config/datasets/{yaml.name}"


def _held(folder: Path, runs: list[Run], most: int | None) -> dict[str, Path]:
    """What of a result is in the crate, by its path there; `most`: no stores, and no file of more bytes."""
    held = {}
    for run in runs:
        small = [f"config/{run.stage.name}.json", f"logs/{run.stage.name}.log", f"benchmarks/{run.stage.name}.tsv"]
        held.update({name: folder / name for name in small if (folder / name).is_file()})
        for data in run.outputs.values():
            if data.file is not None and (most is None or (not data.store and (data.n_bytes or 0) <= most)):
                held[data.file] = data.path
    return held


# writing


def _into(folder: Path, kit: Mapping[str, Path], texts: Mapping[str, str]) -> None:
    """Beside the results, the metadata last; what an earlier crate left is replaced."""
    with _partial(folder) as partial:
        _copy(partial, kit, texts)
        shutil.rmtree(folder / WORKFLOW, ignore_errors=True)
        os.replace(partial / WORKFLOW, folder / WORKFLOW)
        for name in (PREVIEW, METADATA):
            os.replace(partial / name, folder / name)


def _light(out: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> None:
    """A zip or a folder of its own, complete or not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with _partial(out.parent) as partial:
        _copy(partial / "crate", files, texts)
        made = partial / "crate"
        if out.suffix == ".zip":
            made = partial / "crate.zip"
            with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in (*texts, *files):
                    archive.write(partial / "crate" / name, name)
        os.replace(made, out)


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder for what is not complete, on the same disk; what is left in it is removed."""
    with tempfile.TemporaryDirectory(prefix=".crate-", dir=folder) as name:
        yield Path(name)


def _copy(folder: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> None:
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _summary(folder: Path, out: Path | None, runs: list[Run]) -> list[str]:
    made = [data for run in runs for data in run.outputs.values()]
    stores = [data for data in made if data.store]
    size = human_bytes(sum(data.n_bytes or 0 for data in stores))
    held = "described where they are" if out is None else "described by name, digest and size"
    return [
        f"wrote {out if out is not None else folder / METADATA}: {len(runs)} stages, {len(made) - len(stores)} files; "
        f"{len(stores)} stores ({size}) {held}",
        f"their shards were not read; that is what `gigascope verify {folder}/*.zarr` does",
    ]
