"""Command files for IMOD: newst.com makes the aligned stack, tilt.com the tomogram (man pages of newstack and tilt).

Sizes and shifts are in pixels of the raw stack unless said; numbers of views count from 1. Run them in their folder:
`submfg newst.com tilt.com`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from gigascope.store.writers.whole_file import write_text

# Cutoff and fall-off of the radial filter, cycles per pixel: what etomo writes.
_RADIAL = "0.35 0.035"
_SAVEWORK = "$if (-e ./savework) ./savework"


def write_newst_com(
    path: str | Path, *, stack: str, aligned: str, xf: str, shape: tuple[int, int], bin: int = 1, remark: str = ""
) -> None:
    """Write newst.com: rotate, shift, bin and cut the raw stack with a .xf.

    Parameters
    ----------
    stack, aligned, xf : names of the raw stack, of the aligned one to be made, and of the transforms
    shape : (x, y) of the aligned views after binning
    bin : of the aligned stack
    remark : a line for people

    Raises
    ------
    UserError : the disk is full or must not be written to
    """
    lines = [
        *_head(remark),
        "$newstack -StandardInput",
        f"InputFile\t{stack}",
        f"OutputFile\t{aligned}",
        f"TransformFile\t{xf}",
        "TaperAtFill\t1,1",
        "AdjustOrigin",
        f"SizeToOutputInXandY\t{shape[0]},{shape[1]}",
        "OffsetsInXandY\t0.0,0.0",
        "ImagesAreBinned\t1.0",
        f"BinByFactor\t{bin}",
        "AntialiasFilter\t-1",
        _SAVEWORK,
    ]
    write_text(Path(path), "\n".join(lines) + "\n")


def write_tilt_com(
    path: str | Path,
    *,
    aligned: str,
    tomogram: str,
    tlt: str,
    full: tuple[int, int],
    shape: tuple[int, int],
    thickness_px: int,
    bin: int = 1,
    excluded: ArrayLike = (),
    log: bool = True,
) -> None:
    """Write tilt.com: weighted backprojection of the aligned stack.

    Parameters
    ----------
    aligned, tomogram, tlt : names of the aligned stack, of the tomogram to be made, and of the tilt angles
    full : (x, y) of the whole aligned views, not binned, before anything was cut off
    shape : (x, y) of the aligned views after binning
    thickness_px : of the tomogram, not binned
    bin : of the aligned stack
    excluded : (tilt,) bool
    log : projections are intensities, of which the logarithm is taken

    Raises
    ------
    UserError : the disk is full or must not be written to
    """
    start = [(whole - bin * part) // 2 for whole, part in zip(full, shape)]
    left_out = (np.flatnonzero(np.asarray(excluded, dtype=bool)) + 1).tolist()
    lines = [
        *_head(),
        "$tilt -StandardInput",
        f"InputProjections {aligned}",
        f"OutputFile {tomogram}",
        f"IMAGEBINNED {bin}",
        f"TILTFILE {tlt}",
        f"THICKNESS {thickness_px}",
        f"RADIAL {_RADIAL}",
        "FalloffIsTrueSigma 1",
        "XAXISTILT 0.0",
        *(["LOG 0.0"] if log else []),
        "SCALE 0.0 1.0",
        "PERPENDICULAR",
        "MODE 2",
        f"FULLIMAGE {full[0]} {full[1]}",
        f"SUBSETSTART {start[0]} {start[1]}",
        "AdjustOrigin",
        "OFFSET 0.0",
        "SHIFT 0.0 0.0",
        *([f"EXCLUDELIST2 {number_list(left_out)}"] if left_out else []),
        "ActionIfGPUFails 1,2",
        _SAVEWORK,
    ]
    write_text(Path(path), "\n".join(lines) + "\n")


def number_list(numbers: Sequence[int]) -> str:
    """Ascending numbers as IMOD lists them: 1,3-5,9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _head(remark: str = "") -> list[str]:
    return ["# Written by gigascope.", *([f"# {remark}"] if remark else []), "$setenv IMOD_OUTPUT_FORMAT MRC"]
