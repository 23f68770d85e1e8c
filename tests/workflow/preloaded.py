"""Snakemake that is loaded once: each dry run is a copy of this process, and takes what is loaded with it.

Loading Snakemake takes longer than planning does. `gigascope` is not loaded before the copy is made: each dry run has
the package of the checkout that it is for, as a Snakemake of its own would have.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path


class Preloaded:
    """A process in which Snakemake is loaded; see :func:`preloaded`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        atexit.register(self._process.kill)

    def run(self, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
        """Exit code and output of `snakemake ARGUMENTS` in a folder."""
        output = folder.with_name(folder.name + ".output")
        request = {"arguments": arguments, "folder": str(folder), "environment": {**environment}, "output": str(output)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        reply = self._process.stdout.readline()
        assert reply, "the process with Snakemake in it ended"
        text = output.read_text()
        output.unlink()
        return int(reply), text


@functools.cache
def preloaded() -> Preloaded:
    """One for all tests of this process."""
    return Preloaded()


def serve() -> None:
    """Answer each request, a line of JSON, by the exit code."""
    import snakemake.cli

    for name in ("numpy", "pydantic", "ruamel.yaml", "scipy.ndimage"):
        importlib.import_module(name)
    # finds the plugins and loads them
    snakemake.cli.get_argument_parser()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be_snakemake(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be_snakemake(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    import snakemake.cli

    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        with open(os.devnull) as nothing, open(output, "w") as written:
            os.dup2(nothing.fileno(), 0)
            os.dup2(written.fileno(), 1)
            os.dup2(written.fileno(), 2)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.argv = ["snakemake", *arguments]
        snakemake.cli.main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
