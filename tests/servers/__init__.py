"""Real servers for integration tests and for people: installed once, started on free ports, always stopped.

    with jaeger() as server:
        send_to(server.otlp_grpc)
        traces = wait_until(lambda: jaeger_traces(server.query_url, "shop", since), 10, "the trace in Jaeger")

From a shell: `python -m tests.servers --help`. Times and surprises: README.md beside this file.
"""

from .install import binary, install, installed
from .jaeger import Jaeger, jaeger
from .otelcol import Collector, otelcol, telemetrygen
from .ports import free_port, free_ports
from .process import Server, ServerError
from .prometheus import Prometheus, prometheus
from .queries import (
    Exemplar,
    QueryError,
    Sample,
    jaeger_services,
    jaeger_trace,
    jaeger_traces,
    prometheus_exemplars,
    prometheus_query,
    wait_until,
    zipkin_traces,
)
from .spans import Event, Link, Span
from .tools import InstallError
from .zipkin import Zipkin, zipkin

__all__ = [
    "Collector",
    "Event",
    "Exemplar",
    "InstallError",
    "Jaeger",
    "Link",
    "Prometheus",
    "QueryError",
    "Sample",
    "Server",
    "ServerError",
    "Span",
    "Zipkin",
    "binary",
    "free_port",
    "free_ports",
    "install",
    "installed",
    "jaeger",
    "jaeger_services",
    "jaeger_trace",
    "jaeger_traces",
    "otelcol",
    "prometheus",
    "prometheus_exemplars",
    "prometheus_query",
    "telemetrygen",
    "wait_until",
    "zipkin",
    "zipkin_traces",
]
