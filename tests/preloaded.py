"""A process in which Snakemake and the libraries of all stages are loaded; what it starts is a copy of it.

To load them takes a Snakemake two seconds of CPU and a stage five, and what a small run then does is often less.
`gigascope` is not loaded before the copy is made: each program has the package that its own `PYTHONPATH` names first,
as a program of its own would have. Tests of how programs start, of their memory and of clusters start them as usual.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

LIBRARIES = (
    *("numpy", "scipy.ndimage", "scipy.optimize", "scipy.sparse.linalg", "scipy.spatial", "scipy.stats", "torch"),
    *("numba", "zarr", "ome_zarr", "tifffile", "imagecodecs", "pydantic", "ruamel.yaml", "typer", "rich.progress"),
)


class Preloaded:
    """The process that copies itself; see :func:`preloaded`.

    Attributes
    ----------
    programs : a folder for `PATH`, with a `gigascope` that is such a copy, and a `python` that is none
    """

    def __init__(self) -> None:
        # The name of a socket may have a hundred characters, and the folders of tests have more.
        import tempfile

        self._folder = tempfile.TemporaryDirectory(prefix="preloaded-")
        self.programs = Path(self._folder.name)
        self._socket = self.programs / "socket"
        self._write("gigascope", sys.executable, "-IS", __file__, str(self._socket), "gigascope")
        # Snakemake puts the folder of its Python first on the jobs' PATH.
        self._write("python", sys.executable)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        listening = socket.socket(socket.AF_UNIX)
        with listening:
            listening.bind(str(self._socket))
            listening.listen()
            # It ends with the last holder of this pipe: this process.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listening.fileno())],
                stdin=subprocess.PIPE,
                env=environment,
                pass_fds=[listening.fileno()],
            )

    def _write(self, name: str, *words: str) -> None:
        program = self.programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)

    def start(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], output: IO[Any], errors: IO[Any]
    ) -> Program:
        """Start `snakemake ...` or `gigascope ...` in a folder, in a session of its own."""
        return Program(str(self._socket), words, str(folder), environment, (output.fileno(), errors.fileno()))


@functools.cache
def preloaded() -> Preloaded:
    """One for all tests of this process."""
    return Preloaded()


class Program:
    """A program that was started; it is killed with the process that asked for it.

    Attributes
    ----------
    pid : of its process
    """

    def __init__(
        self, address: str, words: Sequence[str], folder: str, environment: Mapping[str, str], files: tuple[int, int]
    ) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        request = {"words": list(words), "folder": folder, "environment": dict(environment)}
        socket.send_fds(self._connection, [b"!"], list(files))
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._replies = self._connection.makefile()
        reply = self._replies.readline()
        if not reply:
            raise RuntimeError("the process with the libraries in it has ended")
        self.pid = int(reply)
        self._code: int | None = None

    def wait(self) -> int:
        """Its exit code, negative the signal that ended it."""
        if self._code is None:
            reply = self._replies.readline()
            self._code = int(reply) if reply else -signal.SIGKILL
        return self._code

    def poll(self) -> int | None:
        """The same without waiting; none: it runs."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            return self.wait() if self._code is not None or selector.select(0) else None

    def wait_until(self, condition: Callable[[], bool], seconds: float = 300) -> bool:
        """Until something holds; whether it does. It ends with the program, and after some minutes."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.005)
        return False

    def send_signal(self, number: int) -> None:
        """A signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL; the exit code, which may be that of an end before it."""
        self.send_signal(signal.SIGKILL)
        return self.wait()


# the process itself


class _Server:
    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        self._children: dict[socket.socket, int] = {}
        self._ended = False

    def serve(self) -> None:
        """Until standard input, which its owner holds, is closed."""
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._end)
        while not self._ended:
            for key, _ in self._selector.select():
                # unless what came with it has ended it
                if self._selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj)
        for pid in self._children.values():
            os.killpg(pid, signal.SIGKILL)

    def _end(self, _: object) -> None:
        self._ended = True

    def _accept(self, listening: socket.socket) -> None:
        connection, _ = listening.accept()
        _, files, _, _ = socket.recv_fds(connection, 1, 2)
        request = connection.makefile().readline()
        pid = os.fork() if request else 0
        if request and pid == 0:
            self._selector.close()
            _become(Path(listening.getsockname()).with_name("python"), files, **json.loads(request))
        for file in files:
            os.close(file)
        if not request:
            connection.close()
            return
        connection.sendall(f"{pid}\n".encode())
        self._children[connection] = pid
        ending = os.pidfd_open(pid)
        self._selector.register(ending, selectors.EVENT_READ, functools.partial(self._reap, connection, pid))
        self._selector.register(connection, selectors.EVENT_READ, self._left)

    def _left(self, connection: socket.socket) -> None:
        """Whoever asked for it is gone: so is it."""
        self._selector.unregister(connection)
        os.killpg(self._children[connection], signal.SIGKILL)

    def _reap(self, connection: socket.socket, pid: int, ending: int) -> None:
        self._selector.unregister(ending)
        os.close(ending)
        _, status = os.waitpid(pid, 0)
        del self._children[connection]
        if connection.fileno() in self._selector.get_map():
            self._selector.unregister(connection)
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        connection.close()


def _become(python: Path, files: list[int], words: list[str], folder: str, environment: dict[str, str]) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        with open(os.devnull) as nothing:
            for number, file in enumerate((nothing.fileno(), *files)):
                os.dup2(file, number)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.argv = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
        if words[0] == "snakemake":
            sys.executable = str(python)
        if threads := environment.get("OMP_NUM_THREADS"):
            # asked for when the library was loaded
            sys.modules["torch"].set_num_threads(int(threads))
        main = importlib.import_module(f"{words[0]}.cli").main
        main(words[1:])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _leave(code: int) -> None:
    """What ends with the interpreter ends here too: helper processes, records that are written at exit."""
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _serve(listening: socket.socket) -> None:
    import snakemake.cli

    for name in LIBRARIES:
        importlib.import_module(name)
    # finds the plugins and loads them
    snakemake.cli.get_argument_parser()
    # numba loads what it knows of types and functions with the first one that it compiles
    importlib.import_module("numba").njit(lambda x: x + 1)(1.0)
    _Server(listening).serve()


def _call(address: str, words: list[str]) -> int:
    """Be a program that such a copy stands in for: its output, its end, and the signals that it is sent."""
    program = Program(address, words, os.getcwd(), os.environ, (1, 2))

    def pass_on(number: int, frame: FrameType | None) -> None:
        program.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    code = program.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        sys.exit(_call(sys.argv[1], sys.argv[2:]))
