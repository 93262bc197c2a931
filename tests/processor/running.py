"""A whole processor on free loopback ports, with a fake backend and a fake connector."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from mlspan_processor.config import Components, check
from mlspan_processor.config.sources import merge
from mlspan_processor.pipeline import Engine
from mlspan_processor.telemetry import Telemetry
from mlspan_processor.testing import FakeConnector, FakeExporter, Sink, fake_connector_type

BASE = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
connectors: {mlspan: }
exporters: {fake: }
extensions: {health_check: {endpoint: "127.0.0.1:0"}}
service:
  extensions: [health_check]
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {port: 0}}}}]}}
  pipelines:
    traces/in: {receivers: [otlp], exporters: [mlspan]}
    logs/in: {receivers: [otlp], exporters: [mlspan]}
    traces: {receivers: [mlspan], exporters: [fake]}
    metrics: {receivers: [otlp], exporters: [fake]}
    logs: {receivers: [mlspan], exporters: [fake]}
"""


@dataclass
class Running:
    """What a test needs of it."""

    engine: Engine
    exporter: FakeExporter
    connector: FakeConnector

    @property
    def sink(self) -> Sink:
        """What arrived at the backend."""
        return self.exporter.sink

    @property
    def telemetry(self) -> Telemetry:
        """The counters."""
        return self.engine.telemetry

    @property
    def grpc(self) -> str:
        """host:port of OTLP/gRPC."""
        return self._endpoint("OTLP/gRPC")

    @property
    def http(self) -> str:
        """URL of OTLP/HTTP."""
        return f"http://{self._endpoint('OTLP/HTTP')}"

    def _endpoint(self, protocol: str) -> str:
        return next(one.endpoint for name, one in self.engine.parts.receivers if name == protocol)

    def url(self, what: str) -> str:
        """URL of health or own metrics."""
        line = next(line for line in self.engine.endpoints() if line.startswith(what))
        return line.split(" on ")[1]


def build(extra: str = "", components: Components | None = None) -> Engine:
    """Return an engine of BASE with YAML merged over it, not started."""
    document: dict[str, Any] = merge(yaml.safe_load(BASE), yaml.safe_load(extra) or {})
    fakes = Components(exporters={"fake": FakeExporter}, connectors={"mlspan": fake_connector_type()})
    return Engine(check(document, components or fakes))


@contextmanager
def running(extra: str = "") -> Iterator[Running]:
    """Start, yield, shut down."""
    engine = build(extra)
    engine.start()
    exporter, connector = engine.parts.exporters.get("fake"), engine.parts.connectors.get("mlspan")
    assert isinstance(exporter, FakeExporter)
    assert isinstance(connector, FakeConnector)
    try:
        yield Running(engine, exporter, connector)
    finally:
        exporter.gate.set()
        engine.shutdown(10)
