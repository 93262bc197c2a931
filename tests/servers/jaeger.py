"""Jaeger v2: traces in by OTLP, kept in memory, read by its query API.

Its built-in configuration takes 4317 and 4318, which are mlspan's own, and sends spans about its own
queries to localhost:4317, so it is always given one that does neither.
"""

from collections.abc import Mapping, Sequence

from .install import binary
from .ports import chosen
from .process import Server, answers

CONFIG = """\
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics:
      level: none
    logs:
      level: info
extensions:
  jaeger_storage:
    backends:
      memory:
        memory:
          max_traces: 100000
  jaeger_query:
    storage:
      traces: memory
    enable_tracing: false
    http:
      endpoint: {query}
    grpc:
      endpoint: {query_grpc}
  healthcheckv2:
    use_v2: true
    http:
      endpoint: {health}
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: {otlp_grpc}
      http:
        endpoint: {otlp_http}
exporters:
  jaeger_storage_exporter:
    trace_storage: memory
"""


class Jaeger(Server):
    """A running Jaeger."""

    def command(self) -> Sequence[str]:
        """Write the configuration and return the command line."""
        config = self.directory / "jaeger.yaml"
        config.write_text(CONFIG.format_map({purpose: self.address(purpose) for purpose in self.ports}))
        return [str(binary("jaeger")), f"--config={config}"]

    def healthy(self) -> bool:
        """Tell whether all components are up and the query API answers."""
        return answers(f"http://{self.address('health')}/status") and answers(f"{self.query_url}/api/v3/services")

    def addresses(self) -> Mapping[str, str]:
        """Return what people are shown."""
        return {"OTLP gRPC": self.otlp_grpc, "OTLP HTTP": self.otlp_http, "query": self.query_url}

    @property
    def otlp_grpc(self) -> str:
        """Host and port for OTLP over gRPC, without TLS."""
        return self.address("otlp_grpc")

    @property
    def otlp_http(self) -> str:
        """Base address for OTLP over HTTP; traces go to `/v1/traces` below it."""
        return f"http://{self.address('otlp_http')}"

    @property
    def query_url(self) -> str:
        """Base address of the query API, for the functions in `queries`."""
        return f"http://{self.address('query')}"


def jaeger(*, otlp_grpc: int = 0, otlp_http: int = 0, query: int = 0) -> Jaeger:
    """Return a Jaeger, to be started by `with`; 0 means a free port. Installed first if missing."""
    binary("jaeger")
    ports = {"otlp_grpc": otlp_grpc, "otlp_http": otlp_http, "query": query, "query_grpc": 0, "health": 0}
    return Jaeger("jaeger", {purpose: chosen(port) for purpose, port in ports.items()})
