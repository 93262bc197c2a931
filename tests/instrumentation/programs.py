"""How the tests start a program under ``opentelemetry-instrument``, and end it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.otlp_sink import OtlpSink

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
END_SECONDS = 60


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(sink: OtlpSink, **more: str) -> dict[str, str]:
    """What a program needs to run instrumented and to send its spans to the sink."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return {
        **kept,
        **sink.environment(),
        "PYTHONPATH": path,
        "PATH": os.pathsep.join([str(BIN), kept.get("PATH", "")]),
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests,httpx,urllib3",
        **more,
    }


def run(
    sink: OtlpSink, arguments: Sequence[str | Path], instrumented: bool = True, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; it must end well."""
    command = [BIN / "opentelemetry-instrument"] if instrumented else []
    done = subprocess.run(
        [*command, *arguments],
        env=environment(sink, **more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextlib.contextmanager
def server(
    sink: OtlpSink, arguments: Sequence[str | Path], log: Path, **more: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server while the block runs, then end it with SIGTERM, as an operator does."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "opentelemetry-instrument", *arguments],
            env=environment(sink, **more),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(END_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(END_SECONDS)


def await_port(process: "subprocess.Popen[bytes]", port: int, log: Path, seconds: float = 90) -> None:
    """Wait until something listens there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens: {log.read_text()}")


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> str:
    """The answer's text."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=dict(headers or {}))
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())
