"""Running the installers' tools: go, java, mvn, apt-get. A missing one is named, a failing one is quoted."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import say

HEARTBEAT = 30.0
TAIL = 25


class InstallError(RuntimeError):
    """A server could not be installed; the message says what to do."""


@dataclass(frozen=True)
class Tool:
    """A program that must be on PATH, and how a person gets it."""

    program: str
    remedy: str


GO = Tool("go", "install Go 1.25 or newer (https://go.dev/dl/)")
JAVA = Tool("java", "install a Java 17 runtime or newer, e.g. `apt-get install openjdk-17-jre-headless`")
MAVEN = Tool("mvn", "install Maven, e.g. `apt-get install maven`")
APT = Tool("apt-get", "on another system, put a `prometheus` program on PATH yourself")
APT_CACHE = Tool("apt-cache", "it belongs to Debian's `apt`")
DPKG = Tool("dpkg-deb", "it belongs to Debian's `dpkg`")


def require(tool: Tool, purpose: str) -> str:
    """Return the path of `tool`, or raise an InstallError that says what it is needed for."""
    path = shutil.which(tool.program)
    if path is None:
        raise InstallError(f"`{tool.program}` is not on PATH, and it is needed to {purpose}; {tool.remedy}")
    return path


def run(command: Sequence[str], *, cwd: Path, log: Path, what: str, env: Mapping[str, str] | None = None) -> None:
    """Run `command` to its end, its output appended to `log`; when it fails, raise with the log's tail.

    The command gets a process group of its own, which is ended with us: Ctrl-C during a build leaves no
    compiler behind.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        began = time.monotonic()
        try:
            while (code := _wait(process, HEARTBEAT)) is None:
                say(f"{what}: still working, {time.monotonic() - began:.0f} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if code:
        raise InstallError(f"{what}: `{' '.join(command)}` ended with {code}; the end of {log}:\n{tail(log)}")


def capture(command: Sequence[str], *, cwd: Path, what: str) -> str:
    """Run a short `command` and return its standard output; raise an InstallError with its error output."""
    done = subprocess.run(list(command), check=False, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise InstallError(f"{what}: `{' '.join(command)}` ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def tail(log: Path, lines: int = TAIL) -> str:
    """Return the last lines of a log file, indented; a note when there is none."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        text = []
    return "\n".join(f"  {line}" for line in text) or "  (the log is empty)"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
