"""The whole engine: wiring, order of start and stop, overload, health, own metrics, and SIGTERM under load."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3

from mlspan_processor.config import Components
from mlspan_processor.errors import StartError
from mlspan_processor.health import State
from mlspan_processor.pipeline import _start
from mlspan_processor.records import Chunk, RetryableError, Signal
from mlspan_processor.signals import SIGNALS
from mlspan_processor.testing import FakeConnector, FakeExporter, fake_connector_type, trace_request
from tests.processor.running import build, running

EXPORT = f"/{SIGNALS[Signal.TRACES].service}/Export"


def send(target: str, requests: int, spans: int) -> int:
    """Send requests over one connection; return how many spans were acknowledged."""
    accepted = 0
    with grpc.insecure_channel(target) as channel:
        method = channel.unary_unary(EXPORT)
        for _ in range(requests):
            try:
                method(trace_request(spans), timeout=20)
            except grpc.RpcError as error:
                code = error.code()
                # CANCELLED: the server stopped before it looked at the request. Both are retryable in OTLP.
                assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            else:
                accepted += spans
    return accepted


def test_data_goes_through_the_connector_and_out() -> None:
    """Traces pass receiver, connector and exporter; each counts them."""
    with running() as one:
        assert send(one.grpc, 3, 5) == 15
        one.sink.wait_for(15)
        assert one.connector.taken.items == 15
        one.engine.shutdown(5)
        assert one.telemetry.value("mlspan_receiver_accepted_spans", transport="grpc") == 15
        assert one.telemetry.value("mlspan_exporter_sent_spans", exporter="fake") == 15
        assert one.telemetry.value("mlspan_connector_count", connector="mlspan", name="items") == 15


def test_start_and_stop_order() -> None:
    """Exporters and connectors run before anything is received; they stop after it, each once."""
    with running() as one:
        assert one.engine.state is State.READY
        assert one.exporter.calls == ["start"]
        assert one.connector.calls == ["start"]
        one.engine.shutdown(5)
        assert one.connector.calls == ["start", "shutdown"]
        with pytest.raises(grpc.RpcError):
            send_once(one.grpc)
    assert one.exporter.calls == ["start", "shutdown", "shutdown"]


def send_once(target: str) -> None:
    """Send one request that must be taken."""
    with grpc.insecure_channel(target) as channel:
        channel.unary_unary(EXPORT)(trace_request(1), timeout=5)


class FailingStart(FakeExporter):
    """An exporter whose backend cannot be opened."""

    def start(self) -> None:
        """Fail as a file in a missing folder does."""
        raise OSError('cannot write "/nowhere/spans.json"')


def test_a_part_that_cannot_start_stops_the_others() -> None:
    """The error names the part; what had started is stopped again."""
    components = Components({"fake": FakeExporter, "failing": FailingStart}, {"mlspan": fake_connector_type()})
    pipelines = "service: {pipelines: {traces: {exporters: [fake, failing]}}}"
    engine = build(f"exporters: {{failing: }}\n{pipelines}", components)
    with pytest.raises(StartError, match=r'exporter "failing" cannot start: cannot write "/nowhere/spans\.json"'):
        engine.start()
    fake: Any = engine.parts.exporters["fake"]
    assert fake.calls == ["start", "shutdown"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(98, 'endpoint "127.0.0.1:1" cannot be listened on'), 'endpoint "127.0.0.1:1" cannot be listened on'),
        (FileNotFoundError(2, "No such file", "/nowhere"), "[Errno 2] No such file: '/nowhere'"),
        (ValueError("no"), "no"),
    ],
)
def test_why_a_part_cannot_start(error: Exception, expected: str) -> None:
    """A part's own message stands without the system's number; the system's message with the file it names."""

    def start() -> None:
        raise error

    with pytest.raises(StartError) as caught:
        _start("a part", start)
    assert str(caught.value) == f"a part cannot start: {expected}"


def test_flood_into_a_full_queue_loses_nothing_acknowledged() -> None:
    """With a slow backend most requests are refused; every acknowledged span arrives, no other does."""
    queue = "exporters: {fake: {sending_queue: {queue_size: 100, sizer: items, num_consumers: 1}}}"
    with running(queue) as one:
        one.exporter.gate.clear()
        assert 0 < send(one.grpc, 20, 20) <= 100
        one.exporter.gate.set()
        totals: list[int] = []
        threads = [threading.Thread(target=lambda: totals.append(send(one.grpc, 40, 20))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        acknowledged = 100 + sum(totals)
        one.sink.wait_for(acknowledged)
        assert one.engine.shutdown(10) == 0
        assert one.sink.items == acknowledged
        assert one.telemetry.value("mlspan_receiver_accepted_spans") == acknowledged
        # Under load gRPC refuses streams by itself (REFUSED_STREAM), which no handler sees.
        assert 0 < one.telemetry.value("mlspan_receiver_refused_spans") <= (20 + 160) * 20 - acknowledged


def test_memory_limiter_stands_in_the_pipeline() -> None:
    """Above the limit data is refused with a retryable error."""
    limiter = "processors: {memory_limiter: {limit_mib: 1}}"
    pipelines = "service: {pipelines: {traces/in: {processors: [memory_limiter]}}}"
    with running(f"{limiter}\n{pipelines}") as one:
        assert send(one.grpc, 2, 3) == 0
        assert one.telemetry.value("mlspan_processor_refused_spans", processor="memory_limiter") == 6
        assert one.telemetry.value("mlspan_receiver_refused_spans") == 6


class BrokenOutput(FakeConnector):
    """A connector that hands everything on twice, once to nobody who takes it."""

    def consume(self, chunk: Chunk) -> None:
        """Hand on; count what the output refuses like the real one."""
        try:
            super().consume(chunk)
        except RetryableError:
            self.calls.append("refused")


def test_what_no_exporter_takes_is_counted_under_the_connector() -> None:
    """A connector's output that finds every queue full is a counted loss."""
    components = Components({"fake": FakeExporter}, {"mlspan": fake_connector_type(BrokenOutput)})
    engine = build("exporters: {fake: {sending_queue: {queue_size: 1, num_consumers: 1}}}", components)
    exporter: Any = engine.parts.exporters["fake"]
    exporter.gate.clear()
    engine.start()
    try:
        assert send(engine.parts.receivers[0][1].endpoint, 3, 2) == 6
        assert engine.telemetry.value("mlspan_connector_output_failed_spans", connector="mlspan") == 4
    finally:
        exporter.gate.set()
        engine.shutdown(10)


def get(url: str) -> urllib3.BaseHTTPResponse:
    """GET once."""
    with urllib3.PoolManager(retries=False, timeout=20) as pool:
        return pool.request("GET", url)


def test_health_tells_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a connector says is in the answer, by part; the status stays 200."""
    with running() as one:
        monkeypatch.setattr(one.connector, "problems", lambda: ["the disk is full"], raising=False)
        answer = get(one.url("health"))
        assert (answer.status, answer.json()["problems"]) == (200, ['connector "mlspan": the disk is full'])


def test_health_follows_the_state() -> None:
    """503 before and while stopping, 200 when ready, always with JSON that says so."""
    with running() as one:
        url = one.url("health")
        ready = get(url)
        assert (ready.status, ready.json()["status"]) == (200, "Server available")
        for state in (State.STARTING, State.STOPPING):
            one.engine.state = state
            answer = get(url)
            assert (answer.status, answer.json()["state"]) == (503, state.value)


def test_own_metrics_are_served() -> None:
    """/metrics is Prometheus text with the counters of this processor."""
    with running() as one:
        send(one.grpc, 1, 7)
        one.sink.wait_for(7)
        answer = get(one.url("own metrics") + "/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.data.decode()
        assert '\nmlspan_receiver_accepted_spans{receiver="otlp",transport="grpc"} 7\n' in text
        assert "# TYPE mlspan_process_memory_rss gauge" in text
        assert 'mlspan_exporter_queue_capacity{exporter="fake",signal="traces"} 1000' in text


def test_no_metrics_at_level_none() -> None:
    """level: none opens no port for own metrics."""
    engine = build("service: {telemetry: {metrics: {level: none}}}")
    engine.start()
    engine.shutdown(5)
    assert not [line for line in engine.endpoints() if "metrics" in line]


def test_shutdown_reports_what_was_lost() -> None:
    """With a backend that never answers, stopping ends in time and tells how much was not sent."""
    with running() as one:
        one.exporter.gate.clear()
        assert send(one.grpc, 2, 5) == 10
        assert one.engine.shutdown(0.2) == 10


PLUGIN = '''
"""A third-party exporter: appends the number of spans of each chunk to a file, slowly."""
import time
from mlspan_processor.testing import FakeExporter
from mlspan_processor.records import ExportResult
from pydantic import BaseModel


class Settings(BaseModel, extra="forbid"):
    path: str


class Counting(FakeExporter):
    """Counts spans into a file"""

    Config = Settings

    def export(self, chunk, timeout_seconds):
        time.sleep(0.002)
        with open(self.config.path, "a") as file:
            file.write(f"{chunk.items}\\n")
        return ExportResult()
'''


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """Install a third-party exporter "counting" for a subprocess, by an entry point on its path; return environ."""
    (tmp_path / "counting_plugin.py").write_text(PLUGIN, "utf-8")
    info = tmp_path / "counting_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-plugin\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[mlspan_exporter]\ncounting = counting_plugin:Counting\n", "utf-8")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}}}}
exporters: {counting: {path: PATH, sending_queue: {queue_size: 100000}}}
service:
  telemetry: {metrics: {level: none}, logs: {encoding: json}}
  pipelines: {traces: {receivers: [otlp], exporters: [counting]}}
"""


def start(tmp_path: Path, environ: dict[str, str], *more: str) -> tuple["subprocess.Popen[str]", str, Path]:
    """Start ``mlspan run`` in a process of its own; return it, its gRPC endpoint and the exporter's file."""
    received = tmp_path / "received"
    config = tmp_path / "config.yaml"
    config.write_text(textwrap.dedent(CONFIG).replace("PATH", str(received)), "utf-8")
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from mlspan_processor.cli import main; raise SystemExit(main())"),
            *("run", "--config", str(config), *more),
        ],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line.startswith("receiving OTLP/gRPC on "), process.communicate()
    return process, line.removeprefix("receiving OTLP/gRPC on "), received


def test_sigterm_under_load_loses_nothing_acknowledged(tmp_path: Path, plugin: dict[str, str]) -> None:
    """Everything that was acknowledged before and during the stop arrives; the exit code is 0."""
    process, target, received = start(tmp_path, plugin)
    totals: list[int] = []
    threads = [threading.Thread(target=lambda: totals.append(send(target, 150, 10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not received.exists() or received.stat().st_size < 100:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    arrived = sum(int(line) for line in received.read_text("utf-8").split())
    # A request whose acknowledgement was cut off may have arrived too: the sender will repeat it.
    assert arrived >= sum(totals) > 0
    records = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    assert records[0]["msg"] == "everything is ready"
    assert records[-1]["msg"] == "stopped; nothing was lost while stopping"


def test_a_second_signal_forces_the_exit(tmp_path: Path, plugin: dict[str, str]) -> None:
    """While draining takes its time, a second SIGTERM ends the process with exit code 1."""
    slow = ("--set", "exporters.counting.sending_queue.num_consumers=1")
    process, target, _ = start(tmp_path, plugin, *slow)
    with grpc.insecure_channel(target) as channel:
        method = channel.unary_unary(EXPORT)
        for _ in range(3000):
            method(trace_request(1))
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "SIGTERM, stopping" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 1
