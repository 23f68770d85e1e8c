"""A private SLURM of several nodes on this machine's loopback, for tests.

One controller, one `slurmd` per node on ports of their own, and a munge of their own: no system service, no cgroup,
nothing under /etc, no root. CPUs and memory of the nodes are what the configuration claims; nothing is confined, but
where memory is policed a job that takes more than it asked for is killed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sinfo": "slurm-client", "munged": "munge"}
COMMANDS = ("srun", "sbatch", "salloc", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sstat")
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def missing_packages() -> list[str]:
    """Debian packages that have to be installed before a cluster can start."""
    return [package for command, package in PACKAGES.items() if _which(command) is None]


class Cluster:
    """A running cluster; see :func:`running_cluster`.

    Attributes
    ----------
    folder : configuration, logs, sockets and state
    environment : what a process needs to reach the cluster, on top of its own
    """

    def __init__(
        self, folder: Path, n_nodes: int, cpus: int, memory_mb: int, policed: bool, patience_s: int, silent_s: int
    ) -> None:
        self.folder = folder
        self.nodes = [f"n{i}" for i in range(1, n_nodes + 1)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._conf = folder / "slurm.conf"
        self._socket = folder / "munge.socket"
        for name in ("log", "state", "spool", "bin"):
            (folder / name).mkdir()
        self._configure(cpus, memory_mb, policed, patience_s, silent_s)
        # Snakemake's job step drops SLURM_CONF before it calls srun, so the commands are wrapped and name it.
        self.environment = {
            "SLURM_CONF": str(self._conf),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def _configure(self, cpus: int, memory_mb: int, policed: bool, patience_s: int, silent_s: int) -> None:
        host = socket.gethostname().split(".")[0]
        ports = _free_ports(len(self.nodes) + 1)
        user = getpass.getuser()
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={ports[0]}",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            f"AuthInfo=socket={self._socket}",
            "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={self.folder}/log/slurmctld.log",
            f"SlurmdLogFile={self.folder}/log/slurmd.%n.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            f"JobAcctGatherType=jobacct_gather/{'linux' if policed else 'none'}",
            "AccountingStorageType=accounting_storage/none",
            "MpiDefault=none",
            "PropagateResourceLimits=NONE",
            "SlurmdParameters=config_overrides",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory",
            "SchedulerParameters=bf_interval=2,sched_min_interval=100000",
            f"SlurmdTimeout={silent_s}",
            f"MessageTimeout={patience_s}",
            "ReturnToService=2",
            "JobRequeue=0",
            "KillWait=3",
            # Finished jobs stay visible to squeue, which is asked every 10 s and slower.
            "MinJobAge=300",
        ]
        if policed:
            lines += ["JobAcctGatherFrequency=task=1", "JobAcctGatherParams=OverMemoryKill"]
        lines += [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory_mb}"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        lines.append(f"PartitionName=main Nodes={','.join(self.nodes)} Default=YES MaxTime=INFINITE State=UP")
        self._conf.write_text("\n".join(lines) + "\n")
        for command in COMMANDS:
            if (real := _which(command)) is not None:
                wrapper = self.folder / "bin" / command
                wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self._conf} exec {real} "$@"\n')
                wrapper.chmod(0o755)

    def start(self, within_s: float = 60) -> None:
        """Start all daemons and wait until every node is idle."""
        key = self.folder / "munge.key"
        subprocess.run([_found("mungekey"), "--create", f"--keyfile={key}"], check=True)
        options = {"key-file": key, "socket": self._socket}
        options |= {name: self.folder / f"munge.{name}" for name in ("pid-file", "seed-file", "log-file")}
        self._launch("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in options.items()))
        self._until(self._socket.exists, "munge", within_s)
        self._launch("slurmctld", "-D", "-i")
        for node in self.nodes:
            self._launch("slurmd", "-D", "-N", node, name=f"slurmd.{node}")
        self._until(lambda: self._states() == ["idle"] * len(self.nodes), "the nodes", within_s)

    def _states(self) -> list[str]:
        return self.ask("sinfo", "-h", "-N", "-o", "%t").split()

    def ask(self, command: str, *arguments: str) -> str:
        """Standard output of a SLURM command."""
        call = [str(self.folder / "bin" / command), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=False).stdout

    def stop_controller(self) -> None:
        """The controller goes away; nodes and jobs go on."""
        self._processes["slurmctld"].terminate()
        self._processes["slurmctld"].wait(20)

    def start_controller(self) -> None:
        """The controller comes back, with what it knew."""
        self._launch("slurmctld", "-D", "-i")

    def kill_node(self, node: str) -> None:
        """A node loses its power: its daemon and whatever its jobs run are gone at once."""
        steps = tuple(f"slurmstepd: [{job}." for job in self.ask("squeue", "-h", "-w", node, "-o", "%A").split())
        self._processes[f"slurmd.{node}"].kill()
        # What would report the end of the jobs goes before they do. Another cluster here has jobs of the same numbers:
        # its daemons work in another folder.
        mine = [p for p in psutil.process_iter() if steps and _command(p).startswith(steps)]
        _kill([p for p in mine if _folder(p) == str(self.folder)])
        _kill([p for p in self._job_processes() if _environment(p).get("SLURMD_NODENAME") == node])

    def stop(self) -> None:
        """End the jobs, then the daemons, then what is left of the jobs."""
        self.ask("scancel", f"--user={getpass.getuser()}")
        for name in sorted(self._processes, key=lambda n: (n == "munged", not n.startswith("slurmd"))):
            process = self._processes[name]
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        _kill(self._job_processes())

    def _job_processes(self) -> list[psutil.Process]:
        mine = str(self._conf)
        own = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
        found = []
        for process in psutil.process_iter():
            environment = _environment(process)
            if process.pid not in own and environment.get("SLURM_CONF") == mine and "SLURM_JOB_ID" in environment:
                found.append(process)
        return found

    def _launch(self, command: str, *arguments: str, name: str | None = None) -> None:
        name = name or command
        environment = {**os.environ, "SLURM_CONF": str(self._conf), "PATH": SYSTEM_PATH}
        with (self.folder / "log" / f"{name}.out").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [_found(command), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )

    def _until(self, condition: object, what: str, within_s: float) -> None:
        end = time.monotonic() + within_s
        while not condition():  # type: ignore[operator]
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                logs = "\n".join(f"{p.name}: {p.read_text()[-600:]}" for p in sorted(self.folder.glob("log/*")))
                raise RuntimeError(f"{what} did not come up; ended: {ended}\n{logs}")
            time.sleep(0.1)


@contextlib.contextmanager
def running_cluster(
    n_nodes: int = 3,
    cpus: int = 2,
    memory_mb: int = 4000,
    *,
    policed: bool = False,
    patience_s: int = 10,
    silent_s: int = 300,
) -> Iterator[Cluster]:
    """A cluster for as long as the `with` block lasts.

    Parameters
    ----------
    cpus, memory_mb : of each node
    policed : jobs that take more memory than they asked for are killed
    patience_s : how long commands try to reach the controller
    silent_s : after how long a node that does not answer is down, and its jobs lost; a busy machine keeps its nodes
        waiting for many seconds
    """
    # Unix sockets and slurm.conf want a short path of plain characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    cluster = Cluster(folder, n_nodes, cpus, memory_mb, policed, patience_s, silent_s)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _which(command: str) -> str | None:
    return shutil.which(command, path=SYSTEM_PATH)


def _found(command: str) -> str:
    path = _which(command)
    if path is None:
        raise RuntimeError(f"no {command} here")
    return path


def _free_ports(count: int) -> list[int]:
    """Free ports below the range that the kernel hands out by itself."""
    found: list[int] = []
    for port in random.sample(range(20000, 32000), 2000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _folder(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
