"""Another value of every key of the optics, for the tests that look for an effect."""

from __future__ import annotations

from typing import Any

# By key: the value, and settings under which it matters.
EFFECTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "model": ("gaussian", {}),
    "modality": ("widefield", {}),
    "na": (0.4, {}),
    "n_immersion": (1.1, {}),
    "n_sample": (1.33, {}),
    "n_glass": (1.6, {"n_glass_design": 1.52}),
    "n_immersion_design": (1.001, {}),
    "n_glass_design": (1.6, {}),
    "t_immersion_um": (500.0, {"n_immersion_design": 1.001}),
    "t_glass_um": (200.0, {}),
    "t_glass_design_um": (120.0, {}),
    "lambda_ex_nm": (488.0, {}),
    "lambda_em_nm": (520.0, {}),
    "pinhole_au": (2.0, {}),
    "sheet_waist_um": (1.0, {"modality": "lightsheet"}),
    "sheet_field_um": (900.0, {"modality": "lightsheet"}),
    "sigma_um": ((1.0, 0.3, 0.3), {"model": "gaussian"}),
    "sigma_depth_um": (50.0, {"model": "gaussian"}),
    "widen": (1.5, {}),
    "recentre": (False, {}),
    "psf_energy": (0.8, {}),
    "cap_um": ((3.0, 1.0, 1.0), {}),
    "depth_step_um": (7.0, {}),
    "eig_tol": (1e-4, {}),
    "eig_max": (1, {}),
}
# of these tests/synthesis/optics/test_measured.py shows the effect
MEASURED = {"paths", "path_depths_um", "path_voxel_um", "symmetrise"}
