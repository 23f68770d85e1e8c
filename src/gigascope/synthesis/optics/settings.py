"""What the optics are computed from: the keys of the config section `optics`, constants only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Settings:
    """The keys of :class:`gigascope.config.synthesis_optics.Optics`, which describes and checks them."""

    model: str
    modality: str
    na: float
    n_immersion: float
    n_sample: float
    n_glass: float
    n_immersion_design: float | None
    n_glass_design: float | None
    t_immersion_um: float
    t_glass_um: float
    t_glass_design_um: float
    lambda_ex_nm: float
    lambda_em_nm: float
    pinhole_au: float
    sheet_waist_um: float
    sheet_field_um: float
    sigma_um: Three
    sigma_depth_um: float
    paths: tuple[str, ...]
    path_depths_um: tuple[float, ...]
    path_voxel_um: Three | None
    symmetrise: bool
    widen: float
    recentre: bool
    psf_energy: float
    cap_um: Three
    depth_step_um: float
    eig_tol: float
    eig_max: int

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Settings:
        """From the resolved section, plain JSON values; lists become tuples."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = section[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)
