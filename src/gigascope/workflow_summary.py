"""What a run has come to, for the terminal: headline numbers and warnings of each dataset, and where its report is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gigascope.config.dataset import Dataset

# The numbers of metrics.json that are shown on the terminal when a run has ended.
HEADLINES = {
    "tomography": ("start_error_px", "prealign_error_px", "alignment_error_px", "resolution_fsc_0.5"),
    "compression": ("ratio", "bytes", "psnr_fg", "noise_ceiling_fg", "psnr_fg_clean", "av1_psnr_fg_clean"),
    "topography": (
        "height_rmse",
        "height_rmse_dz",
        "best_estimator_rmse",
        "all_in_focus_psnr",
        "coverage",
        "view_agreement",
        "sharpness_gain",
    ),
    "synthesis": (
        "nuclei_naive",
        "det_naive",
        "w1_real_naive",
        "w1_real_adapted",
        "spectrum_real_naive",
        "spectrum_real_adapted",
        "seg_adapted",
        "aligned",
    ),
}


def summary_lines(results: str, datasets: Mapping[str, Dataset]) -> list[str]:
    """Lines for every dataset, by name, that has a report in the folder `results`."""
    lines: list[str] = []
    for name, dataset in datasets.items():
        page, metrics = (Path(results, name, file) for file in ("report.html", "metrics.json"))
        if not page.is_file():
            continue
        found = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
        lines.append(f"{name}:")
        for key in HEADLINES[dataset.pipeline]:
            entry = found.get(key, {})
            if entry.get("value") is not None:
                lines.append(f"  {entry['label']}: {_short(entry['value'])} {entry['unit']}".rstrip())
        lines += [f"  warning: {text}" for text in found.get("warnings", [])]
        lines.append(f"  report: {page.resolve()}")
    return lines


def _short(value: float) -> str:
    """A number for the terminal."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
