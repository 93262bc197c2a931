"""One server process: started on its ports, waited for until healthy, stopped by its id, never left behind.

A `Server` is a context manager. Its ports are chosen once, so `stop()` and `start()` (or `restart()`) give a
dead and then a living back end at the same address. Its files are in a temporary folder that lives until the
`with` block ends.

Nothing outlives us: `stop()` and an exit handler end the process group (SIGTERM, then SIGKILL), and for the
cases in which no handler runs (SIGKILL, a crash) a small shell holds the other end of a pipe and ends the
group when we vanish.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .ports import HOST, is_free
from .tools import tail

START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
POLL = 0.05
WATCH = 'read -r _; kill -TERM "-$1"; sleep 3; kill -KILL "-$1"; rm -rf -- "$2"'


class ServerError(RuntimeError):
    """A server did not start or died; the message ends with its log."""


class Server:
    """A real server under test.

    Attributes:
        name: what it is called in messages.
        ports: what each port is for, and its number.
        directory: configuration, data and `server.log`; removed by `close()`.
    """

    def __init__(self, name: str, ports: Mapping[str, int]) -> None:
        self.name = name
        self.ports = dict(ports)
        self.directory = Path(tempfile.mkdtemp(prefix=f"mlspan-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._started_at = 0
        self._owner = os.getpid()
        atexit.register(self.close)

    # What a server says about itself.

    def command(self) -> Sequence[str]:
        """Return the command line; configuration files are written here."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Return the variables the process gets besides ours, of which OTEL_* are left out."""
        return {}

    def addresses(self) -> Mapping[str, str]:
        """Return what people are shown: purpose and address."""
        return {purpose: self.address(purpose) for purpose in self.ports}

    def healthy(self) -> bool:
        """Tell whether the server answers; called again and again while it starts."""
        raise NotImplementedError

    # What tests do with it.

    def address(self, purpose: str) -> str:
        """Return `127.0.0.1:port` of the port with this purpose."""
        return f"{HOST}:{self.ports[purpose]}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log_path(self) -> Path:
        """The file with everything the process printed, over all its starts."""
        return self.directory / "server.log"

    def log(self) -> str:
        """Return everything the process printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, timeout: float = START_TIMEOUT) -> Self:
        """Start the process and wait until it is healthy; nothing happens when it runs already.

        Raises:
            ServerError: a port is taken, the process ended, or it was not healthy after `timeout` seconds.
        """
        if self.pid is not None:
            return self
        for purpose, port in self.ports.items():
            if not is_free(port):
                raise ServerError(f"{self.name}: port {port} ({purpose}) is in use by another program")
        command = [str(part) for part in self.command()]
        self._started_at = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**_inherited(), **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._watcher = _watch(self._process.pid, self.directory)
        try:
            self._wait_healthy(self._process, timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End the process: SIGTERM, and SIGKILL after `timeout` seconds. Its ports and files stay ours."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End the process by SIGKILL at once: a crash."""
        self._end(signal.SIGKILL, STOP_TIMEOUT)

    def restart(self, timeout: float = START_TIMEOUT) -> Self:
        """Stop and start it again on the same ports. What it kept in memory is lost."""
        self.stop()
        return self.start(timeout)

    def close(self) -> None:
        """Stop it and remove its files. In a forked child, whose exit handlers are ours, nothing happens."""
        if os.getpid() != self._owner:
            return
        self.stop()
        atexit.unregister(self.close)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def output_since_start(self) -> str:
        """Return what the process printed since its latest start."""
        with self.log_path.open("rb") as log:
            log.seek(self._started_at)
            return log.read().decode(errors="replace")

    def _wait_healthy(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            if (code := process.poll()) is not None:
                raise ServerError(
                    f"{self.name}: ended with {code} while starting; its log ends:\n{tail(self.log_path)}"
                )
            if self.healthy():
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name}: not healthy {timeout:.0f} s after its start (ports {self.ports}); "
                    f"its log ends:\n{tail(self.log_path)}"
                )
            time.sleep(POLL)

    def _end(self, first: signal.Signals, timeout: float) -> None:
        process, self._process = self._process, None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill()
            watcher.communicate()
        if process is None:
            return
        _signal_group(process.pid, first)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str, timeout: float = 1.0) -> bool:
    """Tell whether a GET of `url` is answered with a 2xx status."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return 200 <= int(response.status) < 300
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _inherited() -> dict[str, str]:
    """Return our environment without OTEL_*: they configure the program under test, not a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


def _watch(group: int, directory: Path) -> subprocess.Popen[bytes]:
    """Start a shell that ends the group and removes its files once our end of its input is closed."""
    return subprocess.Popen(
        ["/bin/sh", "-c", WATCH, "watch", str(group), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:  # pragma: no cover - a process we started and may not signal
        print(f"mlspan test servers: cannot signal process group {group}: {error}", file=sys.stderr)
