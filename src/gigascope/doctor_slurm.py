"""`gigascope doctor --slurm`: what a cluster offers, which settings of a profile do not fit it, and which would.

Only questions are asked (`sinfo`, `scontrol show config`, `sacctmgr show`); no job is submitted.
"""

from __future__ import annotations

import getpass
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gigascope.config.dataset import read_yaml
from gigascope.doctor import Finding, show
from gigascope.errors import UserError
from gigascope.registry import stages
from gigascope.workflow import RunConfig
from gigascope.workflow_cluster import answer

# The executor's pause between two looks at the queue grows up to this, seconds.
STATUS_S = 180
# File systems of one machine; it may still share them with others.
LOCAL_KINDS = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs"}


@dataclass
class Partition:
    """Nodes that jobs can be sent to by one name.

    Attributes
    ----------
    default : jobs that name no partition go there
    up : it takes jobs
    limit_min : longest time of a job, minutes; none: as long as it likes
    nodes : how many
    cpus, memory_mb : of the smallest node
    gpus : model to the number of them in a node; the model is empty where the site names none
    """

    name: str
    default: bool
    up: bool
    limit_min: int | None
    nodes: int
    cpus: int
    memory_mb: int
    gpus: dict[str, int] = field(default_factory=dict)

    def words(self) -> str:
        """For a person."""
        gpus = ", ".join(f"{n} GPU{'s' * (n > 1)}{f' {model}' if model else ''}" for model, n in self.gpus.items())
        limit = "without a limit of time" if self.limit_min is None else f"up to {_duration(self.limit_min)}"
        of = f"{self.nodes} node{'s' * (self.nodes != 1)} of {self.cpus} CPUs and {self.memory_mb / 1000:.0f} GB"
        return f"{of}{f' with {gpus}' if gpus else ', no GPU'}, jobs {limit}{', the default' * self.default}"


@dataclass(frozen=True)
class Site:
    """What a cluster says of itself.

    Attributes
    ----------
    partitions : by name
    settings : of the controller (`scontrol show config`)
    accounts : that this user may be charged to; none: the site does not say
    """

    partitions: Mapping[str, Partition]
    settings: Mapping[str, str]
    accounts: tuple[str, ...] | None

    @staticmethod
    def ask() -> Site:
        """Ask the cluster that this machine belongs to.

        Raises
        ------
        UserError : no commands of SLURM here, or its controller does not answer
        """
        if shutil.which("sinfo") is None or shutil.which("scontrol") is None:
            raise UserError("there is no SLURM here: no sinfo or scontrol on PATH.", do="Log in to the cluster.")
        partitions = parse_partitions(answer("sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%D|%c|%m|%G"))
        settings = parse_settings(answer("scontrol", "show", "config"))
        accounts = None
        if settings.get("AccountingStorageType", "").endswith("slurmdbd") and shutil.which("sacctmgr") is not None:
            who = getpass.getuser()
            said = answer("sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={who}", "format=account")
            accounts = tuple(sorted({line.strip() for line in said.splitlines() if line.strip()}))
        return Site(partitions, settings, accounts)

    @property
    def default(self) -> Partition | None:
        """Where jobs go that name no partition."""
        return next((p for p in self.partitions.values() if p.default), None)

    @property
    def with_gpus(self) -> list[Partition]:
        """Those with GPUs, the one with most first."""
        found = [p for p in self.partitions.values() if p.gpus]
        return sorted(found, key=lambda p: -p.nodes * sum(p.gpus.values()))


def print_slurm(profile: Path, config: Path) -> None:
    """Print what the cluster offers, and what of a profile does not fit it.

    Parameters
    ----------
    profile : its `config.yaml`
    config : config file of the workflow

    Raises
    ------
    UserError : no SLURM, no such file, or a wrong one
    """
    values, _ = read_yaml(config, do="Work in the folder of the Snakefile, or give --config FILE.")
    run = RunConfig.of(values)
    show(slurm_findings(Site.ask(), profile, run.gpus, gpu_rules()))
    here, results = Path.cwd(), Path(run.results).resolve()
    show(place_findings([here] if results.is_relative_to(here) else [here, results]))


def place_findings(folders: Iterable[Path]) -> Iterator[Finding]:
    """Folders that every node has to see, and that seem to be on a disk of this machine.

    Parameters
    ----------
    folders : such ones, absolute; they need not be there yet
    """
    import psutil

    kinds = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    for folder in folders:
        kind = next((kinds[place] for place in (folder, *folder.parents) if place in kinds), "")
        if kind in LOCAL_KINDS:
            found = f"on a disk of this machine ({kind}), which other nodes may not see"
            yield Finding("note", str(folder), found, "use one that every node sees, if this is none")


def slurm_findings(site: Site, profile: Path, gpus: int, gpu_rules: list[str]) -> Iterator[Finding]:
    """What a cluster offers, and what of a profile does not fit it.

    Parameters
    ----------
    profile : its `config.yaml`
    gpus : that each job of a GPU stage asks for (key `gpus` of config/config.yaml)
    gpu_rules : rules of these stages

    Raises
    ------
    UserError : no such profile, or no YAML
    """
    values, _ = read_yaml(profile, do="Give the config.yaml of a profile: --profile FILE.")
    if not site.partitions:
        yield Finding("bad", "partitions", "there are none that you may see", "ask the site's administrators")
        return
    for partition in site.partitions.values():
        level, state = ("ok", "") if partition.up else ("note", "; it is down")
        yield Finding(level, f"partition {partition.name}", f"{partition.words()}{state}")
    common = values.get("default-resources") or {}
    special = values.get("set-resources") or {}
    yield from _partitions(site, common, special)
    yield from _gpus(site, special, gpus, gpu_rules)
    yield from _threads(site, values, common)
    yield from _account(site, common)
    yield from _time(site, common)
    yield from _controller(site, values)


def _partitions(site: Site, common: Mapping[str, Any], special: Mapping[str, Any]) -> Iterator[Finding]:
    """Names that a profile sends jobs to."""
    known = ", ".join(site.partitions)
    asked = {"default-resources": common.get("slurm_partition")}
    asked |= {f"set-resources: {rule}": (of or {}).get("slurm_partition") for rule, of in special.items()}
    for where, name in asked.items():
        if name is not None and name not in site.partitions:
            yield Finding("bad", where, f"there is no partition {name}", f"slurm_partition: one of {known}")
        elif name is not None and not site.partitions[name].up:
            yield Finding("bad", where, f"partition {name} is down", "take another one, or wait")
    if common.get("slurm_partition") is None and site.default is None:
        found = "this cluster has no default partition and the profile names none"
        yield Finding("bad", "default-resources", found, f"add slurm_partition: one of {known}")


def _gpus(site: Site, special: Mapping[str, Any], gpus: int, rules: list[str]) -> Iterator[Finding]:
    """GPUs that jobs ask for, and that there are."""
    best = next(iter(site.with_gpus), None)
    for rule, of in special.items():
        model, name = (of or {}).get("gpu_model"), (of or {}).get("slurm_partition")
        partition = site.partitions.get(name) if name is not None else site.default
        if model is not None and partition is not None and model not in partition.gpus:
            there = ", ".join(m for m in partition.gpus if m) or "none that has a name"
            found = f"partition {partition.name} has no GPU {model}"
            yield Finding("bad", f"set-resources: {rule}", found, f"gpu_model: one of {there}")
    if gpus and best is None:
        do = "set gpus: 0 in config/config.yaml; GPU stages then run on CPUs"
        yield Finding("bad", "GPUs", f"jobs of GPU stages ask for {gpus}, and there are none", do)
    elif gpus and best is not None:
        astray = []
        for rule in rules:
            name = (special.get(rule) or {}).get("slurm_partition")
            partition = site.partitions.get(name) if name is not None else site.default
            if partition is not None and sum(partition.gpus.values()) < gpus:
                astray.append(rule)
        if astray:
            lines = "".join(f"\n  {rule}:\n    slurm_partition: {best.name}" for rule in astray)
            found = f"{len(astray)} rules ask for {gpus} in a partition whose nodes have fewer"
            yield Finding("bad", "GPUs", found, f"add to the profile:\nset-resources:{lines}")
    elif best is not None:
        do = "set gpus: 1 in config/config.yaml, and run this again for the partitions to name"
        yield Finding("note", "GPUs", f"partition {best.name} has some, and no job asks for any (gpus: 0)", do)


def _threads(site: Site, values: Mapping[str, Any], common: Mapping[str, Any]) -> Iterator[Finding]:
    """CPUs of a job."""
    used = site.partitions.get(common.get("slurm_partition") or "", site.default)
    if used is None:
        return
    asked = values.get("max-threads")
    if asked is None or asked > used.cpus:
        found = f"jobs may ask for {asked or 'any number of'} CPUs, a node of {used.name} has {used.cpus}"
        yield Finding("bad", "max-threads", found, f"set max-threads: {used.cpus}")
    elif asked < used.cpus:
        found = f"jobs ask for at most {asked} of the {used.cpus} CPUs of a node of {used.name}"
        yield Finding("note", "max-threads", found, f"up to {used.cpus} makes single jobs faster, and they wait longer")
    else:
        yield Finding("ok", "max-threads", f"{asked}, as a node of {used.name} has")


def _account(site: Site, common: Mapping[str, Any]) -> Iterator[Finding]:
    """Who is charged."""
    mine, asked = site.accounts, common.get("slurm_account")
    needed = re.search("associations|limits|qos|all", site.settings.get("AccountingStorageEnforce", "")) is not None
    if mine is None:
        level, do = ("bad", "ask the administrators for yours") if needed and asked is None else ("ok", "")
        yield Finding(level, "account", f"{asked or 'none named'}; this cluster does not say which you may use", do)
    elif asked is not None and asked not in mine:
        do = f"slurm_account: one of {', '.join(mine)}" if mine else "ask the administrators for one"
        yield Finding("bad", "account", f"{asked} is none of yours", do)
    elif asked is None and needed and not mine:
        yield Finding("bad", "account", "jobs need one here, and you have none", "ask the administrators for one")
    elif asked is None and len(mine) > 1:
        do = f"name one in default-resources: slurm_account: one of {', '.join(mine)}"
        yield Finding("note", "account", "none named: jobs are charged to your default one", do)
    else:
        yield Finding("ok", "account", asked or (mine[0] if mine else "none needed"))


def _time(site: Site, common: Mapping[str, Any]) -> Iterator[Finding]:
    """Time limits of jobs whose stages state nothing."""
    used = site.partitions.get(common.get("slurm_partition") or "", site.default)
    asked = common.get("runtime")
    if used is None or used.limit_min is None or not isinstance(asked, int):
        return
    if asked > used.limit_min:
        found = f"jobs ask for {asked} minutes, {used.name} allows {used.limit_min}"
        yield Finding("bad", "runtime", found, f"set runtime: {used.limit_min} in default-resources")
    else:
        found = f"{used.name} ends jobs after {_duration(used.limit_min)}; long stages save their state and go on"
        yield Finding("ok", "runtime", found)


def _controller(site: Site, values: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings of the controller that decide how jobs are looked up, kept apart, and put into arrays."""
    settings, command = site.settings, values.get("slurm-status-command")
    if command == "sacct" and not settings.get("AccountingStorageType", "").endswith("slurmdbd"):
        found = "sacct is asked, and this cluster keeps no accounting"
        yield Finding("bad", "slurm-status-command", found, "set slurm-status-command: squeue")
    age = _number(settings.get("MinJobAge"))
    if command == "squeue" and age is not None and age < STATUS_S:
        found = f"squeue forgets ended jobs after {age} s, and it may be {STATUS_S} s until they are looked up"
        do = "set slurm-status-command: sacct" if site.accounts is not None else "ask for MinJobAge=300"
        yield Finding("bad", "slurm-status-command", found, do)
    if "memory" not in settings.get("SelectTypeParameters", "").lower():
        found = "memory is not shared out by this cluster: jobs on one node may take more than there is"
        yield Finding("note", "memory", found, "set max-threads to the CPUs of a node, so that a job has it alone")
    if settings.get("JobRequeue") == "0":
        found = "a job whose node goes down is not queued again by the cluster"
        yield Finding("ok", "requeue", f"{found}; Snakemake submits it again (retries: {values.get('retries', 0)})")
    longest = _number(settings.get("MaxArraySize"))
    if values.get("slurm-array-jobs") and longest is not None and longest < 2:
        yield Finding("bad", "slurm-array-jobs", "this cluster takes no job arrays", "leave slurm-array-jobs out")


def gpu_rules() -> list[str]:
    """Rules whose jobs ask for GPUs: stages that use one, and what of them is scattered."""
    found = []
    for stage in stages():
        name, scatter = stage.name.replace(".", "_"), stage.scatter
        if stage.gpu:
            found += [name, *(f"{name}_{kind}" for kind in (scatter.gpu if scatter is not None else ()))]
    return found


def parse_partitions(text: str) -> dict[str, Partition]:
    """By name, from `sinfo --noheader --exact --format=%P|%a|%l|%D|%c|%m|%G`; several lines of one name are merged."""
    found: dict[str, Partition] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, state, limit, nodes, cpus, memory, gres = line.split("|")
        of = found.get(name.rstrip("*"))
        new = Partition(name.rstrip("*"), name.endswith("*"), state == "up", _minutes(limit), int(nodes),
                        int(cpus.rstrip("+")), int(memory.rstrip("+")), _models(gres))  # fmt: skip
        if of is None:
            found[new.name] = new
            continue
        of.nodes += new.nodes
        # an empty group of nodes says 0
        of.cpus, of.memory_mb = (min(filter(None, pair), default=0) for pair in
                                 ((of.cpus, new.cpus), (of.memory_mb, new.memory_mb)))  # fmt: skip
        of.gpus = {m: max(of.gpus.get(m, 0), new.gpus.get(m, 0)) for m in of.gpus | new.gpus}
    return found


def parse_settings(text: str) -> dict[str, str]:
    """Of `scontrol show config`: what stands before and behind each `=`."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _models(gres: str) -> dict[str, int]:
    """GPUs of a node by model, from such as `gpu:a100:4(S:0-1),gpu:2`."""
    found: dict[str, int] = {}
    for model, count in re.findall(r"\bgpu(?::([A-Za-z][\w.-]*))?(?::(\d+))?", gres):
        found[model] = found.get(model, 0) + int(count or 1)
    return found


def _minutes(limit: str) -> int | None:
    """Of `days-hours:minutes:seconds`, as far as they are given; none: infinite."""
    if not re.fullmatch(r"(\d+-)?[\d:]+", limit):
        return None
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days:
        hours, minutes = (*parts, 0)[:2]
    else:
        hours, minutes = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return int(days or 0) * 1440 + hours * 60 + minutes


def _duration(minutes: int) -> str:
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:g} h" if minutes < 2880 else f"{minutes / 1440:g} days"


def _number(text: str | None) -> int | None:
    found = re.match(r"\d+", text or "")
    return int(found.group()) if found else None
