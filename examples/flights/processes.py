"""The demo's processes: started with their logs in files, waited for, and always stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

START_SECONDS: Final = 60
STOP_SECONDS: Final = 30
ROOT: Final = Path(__file__).resolve().parents[2]


class DemoError(Exception):
    """The demo cannot go on; the message says which part failed and what its log ends with."""


def port(preferred: int) -> int:
    """The preferred port on 127.0.0.1 if nobody listens there, else a free one."""
    for wanted in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free port on 127.0.0.1")


def listens(address: str) -> bool:
    """Whether something accepts connections at "host:port"."""
    host, _, number = address.rpartition(":")
    try:
        socket.create_connection((host, int(number)), timeout=0.5).close()
    except (OSError, ValueError):
        return False
    return True


def answers(url: str) -> bool:
    """Whether the URL answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


class Processes:
    """A group of child processes; leaving the context stops them in reverse order, SIGTERM first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        while self._running:
            self.stop(self._running[-1][0])

    def log(self, name: str) -> Path:
        """Where the process writes what it has to say."""
        return self._folder / f"{name}.log"

    def start(self, name: str, command: list[str], health: str, env: Mapping[str, str]) -> None:
        """Start a process and wait until `health` answers 200.

        Raises:
            DemoError: it ended, or did not answer in a minute.
        """
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **env},
                start_new_session=True,
            )
        self._running.append((name, process))
        end = time.monotonic() + START_SECONDS
        while not answers(health):
            if process.poll() is not None:
                raise DemoError(f"{name} ended with status {process.returncode}:\n{self._tail(name)}")
            if time.monotonic() > end:
                raise DemoError(f"{name} does not answer at {health} after {START_SECONDS} s:\n{self._tail(name)}")
            time.sleep(0.1)

    def run(self, name: str, command: list[str], env: Mapping[str, str]) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            DemoError: it failed.
        """
        with self.log(name).open("wb") as log:
            status = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **env})
        if status:
            raise DemoError(f"{name} ended with status {status}:\n{self._tail(name)}")
        return self.log(name).read_text()

    def stop(self, name: str) -> None:
        """SIGTERM, wait, and SIGKILL for one that does not go."""
        [process] = [p for n, p in self._running if n == name]
        self._running = [(n, p) for n, p in self._running if n != name]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def check(self) -> None:
        """Raise DemoError if one has ended by itself."""
        for name, process in self._running:
            if process.poll() is not None:
                raise DemoError(f"{name} ended with status {process.returncode}:\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-15:])


def under_opentelemetry(command: list[str]) -> list[str]:
    """The command under ``opentelemetry-instrument`` of this environment."""
    return [str(Path(sys.executable).with_name("opentelemetry-instrument")), *command]
