"""Stage 8, Prometheus: a page that Prometheus scrapes, made from the metrics that were last sent.

Reads `Chunk`s of metrics; serves `/metrics` in OpenMetrics (with exemplars that point at traces) or the
classic text. Answers at once and queues nothing; memory is bounded by `max_series`.
Source: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

from pydantic import Field, field_validator

from mlspan_processor.records import Chunk, Counters, ExportResult, Signal

from .openmetrics import exposition
from .prometheus_names import metric_name
from .prometheus_server import PageServer, host_and_port
from .prometheus_store import Store, StoreSettings
from .settings import Duration, Settings
from .tls import TlsServerSettings, server_context
from .wire import parse_metrics

LOGGER = logging.getLogger(__name__)
REASONS: Final = {
    "temporality": "not cumulative, and no rising delta",
    "name": "no character of the name can stay",
    "name_conflict": "another metric has one of the names",
    "type_conflict": "another metric of this name has another type",
    "series_limit": "max_series is reached",
    "invalid": "a value that Prometheus cannot hold",
}
"""Why data points are dropped: the words of `counters()`, and what they mean."""


class ResourceLabelSettings(Settings):
    """Resource attributes as labels."""

    enabled: bool = Field(default=False, description="Put every resource attribute on every series.")


class PrometheusSettings(Settings):
    """Settings of the `prometheus` exporter."""

    endpoint: str = Field(
        default="127.0.0.1:9464", description="host:port to serve /metrics on; :port for all addresses."
    )
    tls: TlsServerSettings | None = Field(default=None, description="Serve https; unset: http.")
    namespace: str = Field(default="", description="What stands before every metric's name.")
    const_labels: dict[str, str] = Field(default_factory=dict, description="Labels put on every series.")
    send_timestamps: bool = Field(
        default=False, description="Show the time of each data point, not that of the scrape."
    )
    metric_expiration: Duration = Field(
        default=300.0, gt=0, description="How long a series is shown after its last data point."
    )
    resource_to_telemetry_conversion: ResourceLabelSettings = Field(
        default=ResourceLabelSettings(), description="Resource attributes as labels."
    )
    enable_open_metrics: bool = Field(
        default=True,
        description="Answer in OpenMetrics where it is asked for; without it there are no exemplars.",
    )
    add_metric_suffixes: bool = Field(default=True, description="Tell unit and type at the end of names.")
    without_scope_info: bool = Field(default=False, description="Leave the otel_scope_ labels out.")
    without_target_info: bool = Field(default=False, description="Leave target_info out.")
    max_series: int = Field(
        default=100_000,
        gt=0,
        description="Most samples that a scrape shows; data points of further series are dropped.",
    )

    @field_validator("endpoint")
    @classmethod
    def _listens(cls, endpoint: str) -> str:
        host_and_port(endpoint)
        return endpoint


class PrometheusExporter:
    """Serves metrics; `export` and scrapes may come from any thread."""

    Config: ClassVar[Any] = PrometheusSettings
    signals: ClassVar[frozenset[Signal]] = frozenset({Signal.METRICS})
    queued: ClassVar[bool] = False

    def __init__(self, config: PrometheusSettings, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._namespace = metric_name(config.namespace, "", "gauge")
        self._store = Store(
            StoreSettings(
                namespace=config.namespace,
                const_labels=config.const_labels,
                resource_labels=config.resource_to_telemetry_conversion.enabled,
                scope_labels=not config.without_scope_info,
                suffixes=config.add_metric_suffixes,
                expiration_seconds=config.metric_expiration,
                max_series=config.max_series,
            )
        )
        self._told: set[str] = set()
        self._server: PageServer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on; the port is the real one where the endpoint says 0."""
        if self._server is None:
            return host_and_port(self._config.endpoint)
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the endpoint is in use or not of this machine, or a certificate file cannot be read.
        """
        host, port = host_and_port(self._config.endpoint)
        context = server_context(self._config.tls) if self._config.tls is not None else None
        try:
            server = PageServer(host, port, self.page)
        except OSError as error:
            msg = f'{self._name}: endpoint "{self._config.endpoint}" cannot be listened on: {error.strerror}'
            raise OSError(error.errno, msg) from error
        if context is not None:
            # The handshake is left to the connection's own thread.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.1}, name=self._name, daemon=True
        ).start()
        self._server = server

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:  # noqa: ARG002 nothing is waited for
        """Take the metrics over for the next scrape.

        Raises:
            PermanentError: the chunk is no OTLP.
        """
        request = parse_metrics(chunk)
        with self._lock:
            dropped = self._store.update(request, self._clock())
        if not dropped:
            return ExportResult()
        message = "; ".join(f"{count} data points: {REASONS[reason]}" for reason, count in sorted(dropped.items()))
        for reason in dropped.keys() - self._told:
            self._told.add(reason)
            LOGGER.warning(
                "%s: data points are dropped (%s); further ones are only counted", self._name, REASONS[reason]
            )
        return ExportResult(dropped.total(), message)

    def page(self, *, openmetrics: bool) -> bytes:
        """Return what a scrape shows now."""
        with self._lock:
            self._store.expire(self._clock())
            return exposition(
                self._store,
                self._namespace,
                openmetrics=openmetrics and self._config.enable_open_metrics,
                targets=not self._config.without_target_info,
                timestamps=self._config.send_timestamps,
            )

    def counters(self) -> Counters:
        """Return `samples` held and `dropped_<reason>` data points."""
        with self._lock:
            return self._store.counters()

    def shutdown(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
