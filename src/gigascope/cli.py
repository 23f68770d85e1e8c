"""The command line: `gigascope init`, `check`, `run`, `view` and more; `gigascope --help` lists them.

Only wiring; every command imports what it needs when it is called, so that help answers at once.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gigascope.alignment_cli import alignment
from gigascope.crate_cli import crate
from gigascope.errors import EXIT_CHECKPOINTED, EXIT_DEFECT, EXIT_USER, Checkpointed, UserError
from gigascope.reference_cli import keys, schema
from gigascope.runtime import collector

app = typer.Typer(
    name="gigascope",
    help="Raw microscopy data to finished, browsable 3D results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DEBUG = False


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback where something goes wrong.")] = False,
) -> None:
    global DEBUG
    DEBUG = debug


@app.command()
def init(
    pipeline: Annotated[str, typer.Argument(help="Which chain, such as tomography.")],
    name: Annotated[str, typer.Option(help="Name of the dataset and of its results folder.")],
    input_: Annotated[str | None, typer.Option("--input", help="The raw data; it is looked at, not copied.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, any number of times.")] = None,
    folder: Annotated[Path, typer.Option(help="Where to write the YAML.")] = Path("config/datasets"),
    force: Annotated[bool, typer.Option("--force", help="Replace a YAML of that name.")] = False,
) -> None:
    """Look at raw data and write a commented dataset YAML that runs at once."""
    from gigascope.init import write_dataset

    path = write_dataset(pipeline, name, input_, set_ or [], folder, force)
    print(f"wrote {path}\nnext: gigascope check {path}\nthen: snakemake --profile local --config datasets={path}")


@app.command()
def calibrate(
    image: Annotated[str, typer.Argument(help="A real image without labels: TIFF, OME-Zarr, or HDF5 (file.h5/raw).")],
    voxel_um: Annotated[str | None, typer.Option(help="Voxel size z,y,x in um; default: as the file says.")] = None,
    channel: Annotated[int | None, typer.Option(min=0, help="Channel of the nuclei, from 0.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write it to this file instead of the terminal.")] = None,
) -> None:
    """Estimate camera, attenuation, blur and nuclei of a real image: settings for a simulation (synthesis)."""
    from gigascope.calibrate import calibrate_image

    text = calibrate_image(image, voxel_um, channel)
    if write is None:
        print(text, end="")
    else:
        write.write_text(text, encoding="utf-8")
        print(f"wrote {write}")


@app.command("import-legacy")
def import_legacy(
    settings: Annotated[Path, typer.Argument(help="JSON of the simulation of Bruch et al. (2023).")],
    name: Annotated[str, typer.Option(help="Name of the dataset and of its results folder.")],
    training: Annotated[Path | None, typer.Option(help="HJSON of its training, with models.pth beside.")] = None,
    folder: Annotated[Path, typer.Option(help="Where to write the YAML.")] = Path("config/datasets"),
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Turn settings and crops of the published simulation into a dataset that does the same (synthesis)."""
    from gigascope.import_legacy import import_legacy

    files, remarks = import_legacy(settings, name, training, folder, force)
    for remark in remarks:
        print(remark)
    print("\n".join(f"wrote {path}" for path in files) + f"\nnext: gigascope check {files[0]}")


@app.command()
def check(
    datasets: Annotated[list[Path], typer.Argument(help="Dataset YAMLs.")],
) -> None:
    """Validate datasets, open their inputs, and print shapes, memory, disk and time per stage."""
    from gigascope.check import print_check

    for path in datasets:
        print_check(path)


@app.command()
def run(
    stage: Annotated[str, typer.Argument(help="Name of the stage, such as tomography.prealign.")],
    config: Annotated[Path, typer.Option(help="Stage config (JSON) of the workflow, or a dataset YAML.")],
    input_: Annotated[list[str] | None, typer.Option("--input", help="name=path, once per input.")] = None,
    output: Annotated[list[str] | None, typer.Option("--output", help="name=path, once per output.")] = None,
    scratch: Annotated[Path | None, typer.Option(help="Root of scratch folders; default: beside the output.")] = None,
    time_limit_min: Annotated[
        float | None, typer.Option(help="Minutes until the job is ended; the stage saves and stops before.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Folder of the records of a scattered stage: run one job of it only.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="That job is the one which opens the work.")] = False,
    round_: Annotated[int | None, typer.Option("--round", help="That job is a part of this round, from 0.")] = None,
    part: Annotated[int | None, typer.Option(help="That job is this part, from 0.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default: one per GPU, or as the CPUs allow.")
    ] = None,
) -> None:
    """Run one stage, or one job of a scattered stage."""
    collector.collect_rarely()
    from gigascope.runtime.run import job_of, run_stage

    _log_to_stderr()
    limit = None if time_limit_min is None else time_limit_min * 60
    job = job_of(records, open_, round_, part)
    paths = _paths(input_), _paths(output)
    run_stage(stage, config, *paths, scratch=scratch, time_limit_s=limit, job=job, workers=workers)


@app.command()
def stages(
    pipeline: Annotated[str | None, typer.Argument(help="Only this chain.")] = None,
) -> None:
    """List the stages with their inputs, outputs and config section."""
    from gigascope.registry import MODULES
    from gigascope.registry import stages as declared

    if pipeline is not None and pipeline not in MODULES:
        raise UserError(f"there is no pipeline {pipeline!r}.", do=f"Known: {', '.join(MODULES)}.")
    for stage in declared(pipeline):
        optional = [f"[{name}]" for name in stage.optional_inputs]
        reads = ", ".join([*stage.inputs, *optional]) or ("raw files" if stage.reads_inputs else "nothing")
        print(f"{stage.name}{'  (GPU)' if stage.gpu else ''}\n    {stage.title}")
        print(f"    {reads} -> {', '.join(stage.outputs)}; config section: {stage.key}")


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A results folder, or one store.")],
) -> None:
    """Print what a result is and how it was made."""
    from gigascope.info import print_info

    print_info(path)


@app.command()
def explain(
    path: Annotated[Path, typer.Argument(help="A results folder, or one store.")],
    config: Annotated[Path, typer.Option(help="Snakemake's config file.")] = Path("config/config.yaml"),
) -> None:
    """Print which key, module, package or input of a result differs from what a rerun would use."""
    from gigascope.explain import print_explain

    print_explain(path, config)


@app.command()
def status(
    datasets: Annotated[list[str] | None, typer.Argument(help="Names of datasets; default: all.")] = None,
    config: Annotated[Path, typer.Option(help="Snakemake's config file.")] = Path("config/config.yaml"),
    every: Annotated[bool, typer.Option("--all", help="Finished and waiting stages too.")] = False,
    watch: Annotated[
        float | None, typer.Option(min=0.5, help="Look again after so many seconds, until all is done.")
    ] = None,
) -> None:
    """Print how far all running stages are, wherever they run, and what is left."""
    from gigascope.status import print_status

    print_status(config, datasets or [], every, watch)


app.command()(crate)
app.command()(alignment)


@app.command()
def view(
    path: Annotated[Path, typer.Argument(help="A results folder, such as results/cell42.")],
    port: Annotated[int, typer.Option(help="Port to serve on; 0: a free one.")] = 0,
    bind: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the browser.")] = True,
    layer: Annotated[list[str] | None, typer.Option(help="Store to show, any number of times, such as halves.")] = None,
    screenshot: Annotated[Path | None, typer.Option(help="Save a picture and end (needs Chromium).")] = None,
) -> None:
    """Show a result in Neuroglancer, in the browser."""
    from gigascope.report.viewer import view_forever

    view_forever(path, layers=layer, bind=bind, port=port, browser=browser, screenshot=screenshot)


@app.command()
def verify(
    stores: Annotated[list[Path], typer.Argument(help="Stores (…/tomogram.zarr).")],
) -> None:
    """Compare every shard of finished stores with its checksum."""
    from gigascope.store.checksum import verify as problems_of

    bad = 0
    for store in stores:
        problems = problems_of(store)
        bad += bool(problems)
        print(f"{store}: {'; '.join(map(str, problems)) if problems else 'every shard is as it was written'}")
    if bad:
        raise UserError(f"{bad} of {len(stores)} stores are damaged.", do="Remove them and run snakemake again.")


@app.command()
def decode(
    file: Annotated[Path, typer.Argument(help="Compressed volume (….gmix, or its folder form).")],
    out: Annotated[
        Path, typer.Argument(help="….zarr (OME-Zarr with its pyramid) or ….tif; of a projection ….png too.")
    ],
    roi: Annotated[
        str | None, typer.Option(help="z0:z1,y0:y1,x0:x1 in voxels, last + 1; an end left out is the volume's.")
    ] = None,
    factor: Annotated[str, typer.Option(help="Coarser by 2, or by z,y,x such as 1,4,4: means over boxes.")] = "1",
    channel: Annotated[int | None, typer.Option(help="Only this channel, from 0.")] = None,
    time: Annotated[int | None, typer.Option(help="Only this time point, from 0.")] = None,
    project: Annotated[str | None, typer.Option(help="max or mean along --axis, instead of the volume.")] = None,
    axis: Annotated[str, typer.Option(help="Axis of the projection: z, y or x.")] = "z",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Decode a compressed volume, a region of it, a coarser one, or a projection."""
    from gigascope.decode_cli import decode_file

    options: dict[str, Any] = {"roi": roi, "factor": factor, "channel": channel, "time": time}
    decode_file(file, out, **options, project=project, axis=axis, device=device, force=force)


@app.command()
def export(
    file: Annotated[
        Path,
        typer.Argument(
            help="Compressed volume (….gmix, or its folder form), or results folder with a mosaic or cultures."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="Gaussians: ….ply or ….splat for viewers, ….parquet or ….csv to analyse. Mosaic: ….tif, ….ply (mesh). "
            "Cultures: a new folder."
        ),
    ],
    roi: Annotated[
        str | None, typer.Option(help="z0:z1,y0:y1,x0:x1 in voxels, last + 1: Gaussians whose mean is inside.")
    ] = None,
    channel: Annotated[int, typer.Option(help="Channel, from 0.")] = 0,
    time: Annotated[int, typer.Option(help="Time point, from 0.")] = 0,
    bake: Annotated[
        bool, typer.Option("--bake", help="Refit so that no amplitude is negative, instead of leaving those out.")
    ] = False,
    gamma: Annotated[
        float, typer.Option(help="Exponent of the grey of .ply and .splat; below 1 lifts the faint.")
    ] = 0.5,
    opacity: Annotated[float, typer.Option(help="Alpha of .ply and .splat at the 99th percentile.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; --bake computes.")] = "auto",
    picture: Annotated[str, typer.Option(help="Of a mosaic, as .tif: colour or height.")] = "colour",
    vertices: Annotated[int, typer.Option(help="Of a mosaic, as .ply: most vertices of the mesh.")] = 500_000,
    layout: Annotated[
        str,
        typer.Option(
            help="Of cultures: ctc (Cell Tracking Challenge), pairs (TIFF), slices (TIFF), figures (SVG, CSV, Parquet)."
        ),
    ] = "pairs",
    images: Annotated[
        str, typer.Option(help="Of cultures: cultures, adapted, or auto: adapted where there are any.")
    ] = "auto",
    every_um: Annotated[float, typer.Option(help="Of cultures, as slices: their distance, micrometres.")] = 5.0,
    segment: Annotated[
        bool, typer.Option("--segment", help="Of cultures, as ctc: also what the classical segmenter finds.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Export Gaussians for viewers or as a table; a mosaic as pictures or a mesh; cultures for training and scoring."""
    from gigascope.culture_cli import cultures_in, export_cultures
    from gigascope.decode_cli import export_file
    from gigascope.mosaic_cli import export_mosaic, mosaic_in

    of_cultures = {
        "layout": layout != "pairs",
        "images": images != "auto",
        "every-um": every_um != 5,
        "segment": segment,
    }
    of_others = {"roi": roi, "channel": channel, "time": time, "bake": bake, "gamma": gamma != 0.5}
    of_others["opacity"] = opacity != 1
    if (cultures := cultures_in(file)) is not None:
        given = of_others | {"picture": picture != "colour", "vertices": vertices != 500_000}
        options: dict[str, Any] = {"layout": layout, "images": images, "every_um": every_um, "segment": segment}
        export_cultures(cultures, out, **options, force=force, idle=[n for n, v in given.items() if v])
        return
    if idle := [n for n, v in of_cultures.items() if v]:
        do = "Leave it out, or give the results folder of a synthesis dataset."
        raise UserError("is for cultures.", where=f"--{idle[0]}", do=do)
    if (mosaic := mosaic_in(file)) is not None:
        export_mosaic(
            mosaic, out, picture=picture, vertices=vertices, force=force, idle=[n for n, v in of_others.items() if v]
        )
        return
    look = {"gamma": gamma, "opacity": opacity}
    export_file(file, out, roi=roi, channel=channel, time=time, bake=bake, look=look, device=device, force=force)


@app.command()
def doctor(
    results: Annotated[Path, typer.Option(help="Results folder to measure.")] = Path("results"),
    slurm: Annotated[bool, typer.Option(help="Look at the cluster instead, and at the profile for it.")] = False,
    profile: Annotated[Path, typer.Option(help="Profile to compare with the cluster.")] = Path("slurm/config.yaml"),
    config: Annotated[Path, typer.Option(help="Config file of the workflow.")] = Path("config/config.yaml"),
) -> None:
    """Print what this machine has, how fast its disk is, and what to do about what is missing."""
    from gigascope.doctor import print_doctor
    from gigascope.doctor_slurm import print_slurm

    print_slurm(profile, config) if slurm else print_doctor(results)


app.command()(schema)
app.command()(keys)


def _paths(items: list[str] | None) -> dict[str, Path]:
    """`name=path` arguments as a dictionary."""
    found: dict[str, Path] = {}
    for item in items or []:
        name, equals, path = item.partition("=")
        if not equals or not path:
            raise UserError(
                f"{item!r} is not name=path.", do="Write for example --input tilt_series=results/x/tilt_series.zarr."
            )
        found[name] = Path(path)
    return found


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    # These tell of every file and font that they touch.
    for noisy in ("numba", "matplotlib", "distributed", "fsspec", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _fail(code: int, message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: runs a command and turns errors into one message and an exit code."""
    try:
        return app(args=arguments)
    except UserError as error:
        if DEBUG:
            raise
        _fail(EXIT_USER, f"error: {error}")
    except Checkpointed as stopped:
        _fail(EXIT_CHECKPOINTED, str(stopped))
    except Exception as error:
        if DEBUG:
            raise
        _fail(
            EXIT_DEFECT,
            f"internal error: {type(error).__name__}: {error}\n"
            "This is a defect of gigascope, not a mistake of yours. Run again with `gigascope --debug ...` "
            "for details.",
        )


if __name__ == "__main__":
    main()
