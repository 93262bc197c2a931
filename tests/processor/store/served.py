"""`mlspan run` as a process that can be killed and started again on the same files."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3

from mlspan_processor.records import Chunk

ROOT = Path(__file__).parents[3]
CONFIG = """\
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}}}
connectors: {{mlspan: {connector}}}
exporters: {{prometheus: {{endpoint: "127.0.0.1:0"}}, debug: {{}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces/in: {{receivers: [otlp], exporters: [mlspan]}}
    logs/in: {{receivers: [otlp], exporters: [mlspan]}}
    traces: {{receivers: [mlspan], exporters: [debug]}}
    logs: {{receivers: [mlspan], exporters: [debug]}}
    metrics: {{receivers: [mlspan], exporters: [prometheus]}}
"""
PROTOBUF = "application/x-protobuf"


class Served:
    """A processor; enter it again after it has ended."""

    def __init__(self, folder: Path, **connector: Any) -> None:
        self._folder = folder
        self._config = folder / "config.yaml"
        self._config.write_text(CONFIG.format(connector=json.dumps(connector)))
        self._starts = 0

    def __enter__(self) -> Self:
        self._starts += 1
        self.output = self._folder / f"output-{self._starts}"
        command = [sys.executable, "-m", "mlspan_processor", "run", "--config", str(self._config)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        self._pool = urllib3.PoolManager(retries=False, timeout=30)
        mark = "receiving OTLP/HTTP on "
        while mark not in self.output.read_text():
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.02)
        self._url = "http://" + self.output.read_text().split(mark)[1].split()[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop(signal.SIGTERM)

    def stop(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end; its status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self._pool.clear()
        return status

    def send(self, chunk: Chunk) -> None:
        """Post a chunk; returns once it has been acknowledged."""
        self._post(f"/v1/{chunk.signal.value}", chunk.data, PROTOBUF)

    def label(self, pairs: list[tuple[str, str]]) -> Any:
        """Post labels; the answer."""
        body = json.dumps([{"prediction_id": text, "label": label} for text, label in pairs]).encode()
        return json.loads(self._post("/v1/labels", body, "application/json"))

    def get(self, path: str) -> Any:
        """A document of the API."""
        answer = self._pool.request("GET", self._url + path)
        assert answer.status == 200, answer.data
        return json.loads(answer.data)

    def _post(self, path: str, body: bytes, content_type: str) -> bytes:
        answer = self._pool.request("POST", self._url + path, body=body, headers={"Content-Type": content_type})
        if answer.status != 200:
            raise urllib3.exceptions.HTTPError(answer.data)
        return answer.data
