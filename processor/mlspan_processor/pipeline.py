"""THE FLOW. Every stage in the order of the data; each file's docstring has its number.

::

    receive/grpc.py, receive/http.py     1  bytes in, back-pressure out
      └─ memory_limiter.py                  refuses while memory is short
         ├─ connector.py                 2  decode.py      protobuf → records
         │                               3  enrich.py      readable summary onto the span
         │                               4  window.py      panes of event time
         │                               5  quality/ drift/
         │                               6  anomaly/
         │                               7  rootcause/
         └─ export.py                    8  a queue, retries and a timeout per exporter

Start: exporters, connectors, receivers, so that nothing is acknowledged that cannot be handed on. Stop: the
other way round, each draining into the next, within `shutdown_timeout`. After the start nothing raises;
every loss is counted.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mlspan_processor.config import Configuration, Kind
from mlspan_processor.config.schema import HealthCheck
from mlspan_processor.errors import StartError
from mlspan_processor.health import HealthServer, MetricsServer, State
from mlspan_processor.signals import SIGNALS
from mlspan_processor.telemetry import Telemetry
from mlspan_processor.wiring import Parts, wire

_log = logging.getLogger(__name__)

_RECEIVERS_SHARE = 1 / 6
_CONNECTORS_SHARE = 1 / 2
"""Shares of the time that is left when each of them is stopped; the queues have the rest."""


class Engine:
    """One running processor.

    Args:
        configuration: what runs.
        telemetry: where it counts; by default its own.
        clock: monotonic seconds.
        state_dir: where connectors keep state when their settings do not say; None: in memory.
    """

    def __init__(
        self,
        configuration: Configuration,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.monotonic,
        state_dir: Path | None = None,
    ) -> None:
        self.configuration = configuration
        self.telemetry = telemetry or Telemetry(clock)
        self.state = State.STARTING
        self._clock = clock
        self.parts: Parts = wire(configuration, self.telemetry, clock)
        for connector in self.parts.connectors.values():
            if hasattr(connector, "state_dir"):
                connector.state_dir = state_dir
        metrics = configuration.service.telemetry.metrics
        self._servers: list[tuple[str, HealthServer | MetricsServer]] = []
        for component in configuration.of(Kind.EXTENSION):
            assert isinstance(component.settings, HealthCheck)
            server = HealthServer(component.settings, component.id, lambda: self.state, problems=self.problems)
            self._servers.append(("health on http", server))
        if metrics.level != "none":
            self._servers += [
                ("own metrics on http", MetricsServer(reader.pull.exporter.prometheus, self.telemetry))
                for reader in metrics.readers
            ]

    def start(self) -> None:
        """Start everything; if a part cannot start, stop the others and raise StartError."""
        try:
            for _, server in self._servers:
                server.start()
            for name, exporter in self.parts.exporters.items():
                _start(f'exporter "{name}"', exporter.start)
            for sender in self.parts.senders.values():
                sender.start()
            for name, connector in self.parts.connectors.items():
                _start(f'connector "{name}"', connector.start)
            for _, receiver in self.parts.receivers:
                receiver.start()
        except StartError:
            self.shutdown(0.0)
            raise
        self.state = State.READY

    def endpoints(self) -> list[str]:
        """Return one line per listening port, "receiving OTLP/gRPC on 127.0.0.1:4317"."""
        lines = [f"receiving {protocol} on {receiver.endpoint}" for protocol, receiver in self.parts.receivers]
        return lines + [f"{what}://{server.endpoint}" for what, server in self._servers]

    def problems(self) -> list[str]:
        """What a person should know though everything runs, by part."""
        return [
            f'connector "{name}": {problem}'
            for name, connector in self.parts.connectors.items()
            if hasattr(connector, "problems")
            for problem in connector.problems()
        ]

    def shutdown(self, timeout_seconds: float | None = None) -> int:
        """Stop receiving, drain connectors, drain queues; return how many items were lost. Safe twice."""
        self.state = State.STOPPING
        timeout = self.configuration.service.shutdown_timeout if timeout_seconds is None else timeout_seconds
        deadline = self._clock() + timeout

        def left() -> float:
            return max(deadline - self._clock(), 0.0)

        # A receiver waits for its requests in flight, and these may wait for a queue.
        for protocol, receiver in self.parts.receivers:
            _guarded(protocol, partial(receiver.shutdown, left() * _RECEIVERS_SHARE))
        for name, connector in self.parts.connectors.items():
            _guarded(f'connector "{name}"', partial(connector.shutdown, left() * _CONNECTORS_SHARE))
        # All queues drain at the same time, and share the deadline.
        for sender in self.parts.senders.values():
            sender.stop()
        lost = 0
        for (name, signal), sender in self.parts.senders.items():
            missing = sender.shutdown(left())
            lost += missing
            if missing:
                _log.error('exporter "%s": %d %s were not sent', name, missing, SIGNALS[signal].items)
        for name, exporter in self.parts.exporters.items():
            _guarded(f'exporter "{name}"', exporter.shutdown)
        for what, server in self._servers:
            _guarded(what, partial(server.shutdown, 1.0))
        return lost


def _start(part: str, start: Callable[[], None]) -> None:
    try:
        start()
    except StartError:
        raise
    except Exception as error:  # whatever a third party's part raises
        # A message of ours in an OSError stands behind its number; the system's own names the file.
        is_ours = isinstance(error, OSError) and error.strerror and error.filename is None
        reason = error.strerror if is_ours else error  # type: ignore[attr-defined]  # is_ours says so
        raise StartError(f"{part} cannot start: {reason}") from error


def _guarded(part: str, stop: Callable[[], None]) -> None:
    """One part that fails to stop must not keep the others from draining."""
    try:
        stop()
    except Exception:  # noqa: BLE001  # whatever it is
        _log.exception("%s did not stop cleanly", part)
