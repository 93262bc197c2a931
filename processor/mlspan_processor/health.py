"""The health_check extension and the server of the own metrics: two small HTTP endpoints.

Health answers 200 once everything has started and 503 before and while stopping, as the Collector's
extension does; `problems` in its body are for people, since no restart would mend them.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum

from aiohttp import web

from mlspan_processor.config.schema import HealthCheck, PrometheusReader, split_endpoint
from mlspan_processor.http_server import HttpServer
from mlspan_processor.telemetry import Telemetry

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class State(Enum):
    """Where the processor is in its life; the value is what health says."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class HealthServer:
    """One health endpoint."""

    def __init__(
        self,
        config: HealthCheck,
        name: str,
        state: Callable[[], State],
        clock: Callable[[], float] = time.time,
        problems: Callable[[], list[str]] = list,
    ) -> None:
        self._problems = problems
        self._path = config.path
        self._state = state
        self._clock = clock
        self._since = clock()
        host, port = split_endpoint(config.endpoint)
        self._server = HttpServer(f'extension "{name}"', host, port, self._application)

    @property
    def endpoint(self) -> str:
        """host:port; after `start` with the port that was really taken."""
        return self._server.endpoint

    def start(self) -> None:
        """Listen; raise StartError."""
        self._server.start()

    def shutdown(self, timeout_seconds: float) -> None:
        """Close."""
        self._server.shutdown(timeout_seconds)

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get(self._path, self._answer)
        return application

    async def _answer(self, _: web.Request) -> web.Response:
        state = self._state()
        ready = state is State.READY
        body: dict[str, object] = {
            "status": "Server available" if ready else "Server not available",
            "state": state.value,
            "upSince": datetime.fromtimestamp(self._since, UTC).isoformat(),
            "uptime": f"{self._clock() - self._since:.3f}s",
        }
        if problems := self._problems():
            body["problems"] = problems
        return web.json_response(body, status=200 if ready else 503)


class MetricsServer:
    """The processor's own metrics at /metrics."""

    def __init__(self, config: PrometheusReader, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._server = HttpServer("service::telemetry::metrics", config.host, config.port, self._application)

    @property
    def endpoint(self) -> str:
        """host:port; after `start` with the port that was really taken."""
        return self._server.endpoint

    def start(self) -> None:
        """Listen; raise StartError."""
        self._server.start()

    def shutdown(self, timeout_seconds: float) -> None:
        """Close."""
        self._server.shutdown(timeout_seconds)

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/metrics", self._answer)
        return application

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.prometheus_text().encode(), headers={"Content-Type": PROMETHEUS_TEXT})
