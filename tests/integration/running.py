"""`mlspan run` and an instrumented application as processes of their own, for tests against real backends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.servers import free_port, wait_until

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]

CONFIG = """\
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{grpc}"}}, http: {{endpoint: "{http}"}}}}}}}}
connectors: {{mlspan: {connector}}}
exporters: {exporters}
extensions: {{health_check: {{endpoint: "{health}"}}}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces/in: {{receivers: [otlp], exporters: [mlspan]}}
    traces: {{receivers: [mlspan], exporters: {traces}}}
    metrics: {{receivers: [mlspan, otlp], exporters: {metrics}}}
"""


class Processor:
    """A running `mlspan run`; `exporters` by id, each used for traces unless it is named in `metrics`."""

    def __init__(
        self,
        exporters: Mapping[str, Any],
        metrics: tuple[str, ...] = ("prometheus",),
        connector: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mlspan-test-"))
        self.grpc, self.http, self.health, self.metrics = (f"127.0.0.1:{free_port()}" for _ in range(4))
        exporters = {"prometheus": {"endpoint": self.metrics}, **exporters}
        text = CONFIG.format(
            grpc=self.grpc,
            http=self.http,
            health=self.health,
            connector=json.dumps(
                {
                    "metrics_flush_interval": "1s",
                    "store": {"path": str(self.directory / "state.db")},
                    **(connector or {}),
                }
            ),
            exporters=json.dumps(exporters),
            traces=json.dumps([name for name in exporters if name not in {*metrics, "prometheus"}]),
            metrics=json.dumps(list(metrics)),
        )
        self.config = self.directory / "config.yaml"
        self.config.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "mlspan_processor", "run", "--config", str(self.config)]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            with urllib.request.urlopen(f"http://{self.health}/", timeout=1) as answer:
                return bool(answer.status == 200)

        wait_until(lambda: ready() or None, 30, "the processor's health")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait, return the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(60)

    def log(self) -> str:
        """What it has printed."""
        return (self.directory / "log").read_text()

    def get(self, path: str) -> Any:
        """A document of its HTTP port."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, body: str, content_type: str) -> Any:
        """The answer to a POST."""
        request = urllib.request.Request(f"http://{self.http}{path}", body.encode(), {"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def at_least(count: int, found: list[T]) -> list[T]:
    """The list, once it is long enough; an AssertionError until then, which `wait_until` takes as "not yet"."""
    assert len(found) >= count
    return found


def run_application(script: Path, endpoint: str, protocol: str = "grpc", **environment: str) -> str:
    """Run a script under opentelemetry-instrument to its end; return what it printed."""
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("OTEL_")},
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        **environment,
    }
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [str(instrument), sys.executable, str(script)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=ROOT, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
