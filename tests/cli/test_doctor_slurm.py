"""What `gigascope doctor --slurm` says of a cluster, and of a profile that does not fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gigascope.doctor_slurm import Site, gpu_rules, parse_partitions, parse_settings, place_findings, slurm_findings
from gigascope.errors import UserError

SINFO = """\
cpu*|up|1-00:00:00|40|32|128000|(null)
cpu*|up|1-00:00:00|2|64|256000|(null)
gpu|up|2-00:00:00|4|48|512000|gpu:a100:4(S:0-1)
gpu|up|2-00:00:00|1|48|512000|gpu:v100:2(S:0),lscratch:1
old|down|30:00|3|8|16000|gpu:2
debug|up|infinite|1|4|8000|(null)
"""
CONFIG = """\
Configuration data as of 2026-11-27T12:00:00
AccountingStorageEnforce = associations,limits
AccountingStorageType   = accounting_storage/slurmdbd
JobRequeue              = 1
MaxArraySize            = 1001
MinJobAge               = 300 sec
SelectTypeParameters    = CR_CORE_MEMORY
"""
FITTING = {
    "max-threads": 32,
    "slurm-status-command": "squeue",
    "retries": 3,
    "default-resources": {"mem_mb": 2000, "runtime": 30, "slurm_account": "lab", "slurm_partition": "cpu"},
}


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., dict[str, tuple[str, str]]]:
    """Findings about a profile: subject to level and text."""

    def look(profile: Any, gpus: int = 0, sinfo: str = SINFO, accounts: Any = ("lab",), **settings: str) -> Any:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(profile))
        site = Site(parse_partitions(sinfo), parse_settings(CONFIG) | settings, accounts)
        found = list(slurm_findings(site, path, gpus, ["tomography_prealign", "compression_fit"]))
        return {f.subject: (f.level, f"{f.found} - {f.do}") for f in found}

    return look


def bad(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {subject: text for subject, (level, text) in found.items() if level == "bad"}


def changed(**common: Any) -> dict[str, Any]:
    kept = {**FITTING["default-resources"], **common}  # type: ignore[dict-item]
    return {**FITTING, "default-resources": {name: value for name, value in kept.items() if value is not None}}


def test_partitions_are_said_in_words(said: Any) -> None:
    found = said(FITTING)
    assert not bad(found)
    assert found["partition cpu"] == (
        "ok", "42 nodes of 32 CPUs and 128 GB, no GPU, jobs up to 24 h, the default - "
    )  # fmt: skip
    assert "5 nodes of 48 CPUs and 512 GB with 4 GPUs a100, 2 GPUs v100, jobs up to 2 days" in found["partition gpu"][1]
    assert found["partition old"] == (
        "note", "3 nodes of 8 CPUs and 16 GB with 2 GPUs, jobs up to 30 min; it is down - "
    )  # fmt: skip
    assert "without a limit of time" in found["partition debug"][1]
    assert found["GPUs"][0] == "note"


def test_profile_as_shipped_is_read(repository: Path) -> None:
    site = Site(parse_partitions(SINFO), parse_settings(CONFIG), ("lab",))
    found = list(slurm_findings(site, repository / "profiles/slurm/config.yaml", 0, gpu_rules()))
    assert not [f for f in found if f.level == "bad"]


@pytest.mark.parametrize(
    ("profile", "subject", "words"),
    [
        (changed(slurm_partition="cpus"), "default-resources", "no partition cpus - slurm_partition: one of cpu, gpu,"),
        (changed(slurm_partition="old"), "default-resources", "partition old is down"),
        (changed(slurm_account="other"), "account", "other is none of yours - slurm_account: one of lab"),
        (changed(runtime=3000), "runtime", "3000 minutes, cpu allows 1440 - set runtime: 1440"),
        ({**FITTING, "max-threads": 64}, "max-threads", "a node of cpu has 32 - set max-threads: 32"),
        ({**FITTING, "slurm-status-command": "squeue"}, "slurm-status-command", "forgets ended jobs after 60 s"),
        (
            {**FITTING, "set-resources": {"compression_fit": {"slurm_partition": "gpu", "gpu_model": "h100"}}},
            "set-resources: compression_fit",
            "partition gpu has no GPU h100 - gpu_model: one of a100, v100",
        ),
        (
            {**FITTING, "set-resources": {"compression_fit": {"slurm_partition": "gpus"}}},
            "set-resources: compression_fit",
            "there is no partition gpus",
        ),
    ],
)
def test_what_does_not_fit_is_said(profile: Any, subject: str, words: str, said: Any) -> None:
    settings = {"MinJobAge": "60 sec"} if subject == "slurm-status-command" else {}
    found = bad(said(profile, **settings))
    # a partition of smaller nodes may bring more
    assert next(iter(found)) == subject
    assert words in found[subject]


def test_rules_that_ask_for_gpus_need_a_partition_that_has_them(said: Any) -> None:
    found = bad(said(FITTING, gpus=1))
    assert list(found) == ["GPUs"]
    assert found["GPUs"].endswith(
        "set-resources:\n  tomography_prealign:\n    slurm_partition: gpu\n  compression_fit:\n    slurm_partition: gpu"
    )
    rules = {rule: {"slurm_partition": "gpu"} for rule in ("tomography_prealign", "compression_fit")}
    assert not bad(said({**FITTING, "set-resources": rules}, gpus=1))
    assert "there are none" in bad(said(FITTING, gpus=1, sinfo=SINFO.splitlines()[0]))["GPUs"]


def test_accounts_are_asked_for_where_a_site_needs_them(said: Any) -> None:
    assert said(changed(slurm_account=None))["account"] == ("ok", "lab - ")
    assert "you have none" in bad(said(changed(slurm_account=None), accounts=()))["account"]
    assert "one of a, b" in said(changed(slurm_account=None), accounts=("a", "b"))["account"][1]
    assert "does not say" in bad(said(changed(slurm_account=None), accounts=None))["account"]
    assert not bad(said(changed(slurm_account=None), accounts=None, AccountingStorageEnforce="none"))


def test_cluster_without_default_partition_or_accounting(said: Any) -> None:
    found = bad(said(changed(slurm_partition=None), sinfo=SINFO.replace("*", "")))
    assert "no default partition" in found["default-resources"]
    profile = {**FITTING, "slurm-status-command": "sacct"}
    found = bad(said(profile, AccountingStorageType="accounting_storage/none"))
    assert "set slurm-status-command: squeue" in found["slurm-status-command"]
    assert said(FITTING, SelectTypeParameters="CR_CORE")["memory"][0] == "note"


def test_no_slurm_and_a_dead_controller_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no SLURM here"):
        Site.ask()
    for name in ("sinfo", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(UserError, match=r"Unable to contact slurm controller.*may be down"):
        Site.ask()


def test_folders_on_a_disk_of_this_machine_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"/": "ext4", "/home": "nfs4", "/home/tmp": "xfs"}
    disks = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in kinds.items()]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: disks)
    found = list(place_findings([Path("/home/lab/work"), Path("/home/tmp/results"), Path("/opt/work")]))
    assert [(f.level, f.subject) for f in found] == [("note", "/home/tmp/results"), ("note", "/opt/work")]
    assert "(xfs), which other nodes may not see" in found[0].found
