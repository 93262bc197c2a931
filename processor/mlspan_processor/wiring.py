"""From a checked configuration to connected parts; nothing is started here.

receivers → processors → fan-out → exporters' queues, with connectors standing at both ends of pipelines.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlspan_processor.config import Component, Configuration, Kind
from mlspan_processor.config.schema import OtlpReceiver
from mlspan_processor.export import DirectExporter, FanOut, QueuedExporter
from mlspan_processor.memory_limiter import LimitedConsumer, MemoryGate
from mlspan_processor.receive.api import add_routes
from mlspan_processor.receive.grpc import GrpcReceiver
from mlspan_processor.receive.http import HttpReceiver
from mlspan_processor.receive.intake import Intake
from mlspan_processor.records import Chunk, Consumer, Exporter, ItemError, Signal
from mlspan_processor.telemetry import Telemetry


class Connector(Protocol):
    """What the engine needs of a connector; see connector.py."""

    outputs: dict[Signal, Consumer]

    def consume(self, chunk: Chunk) -> None:
        """Take a chunk of a signal it consumes."""

    def start(self) -> None:
        """Begin; `outputs` is set."""

    def shutdown(self, timeout_seconds: float) -> None:
        """Hand everything on."""

    def counters(self) -> Any:
        """Own counters by name."""


class Receiver(Protocol):
    """One listening port."""

    @property
    def endpoint(self) -> str:
        """host:port."""

    def start(self) -> None:
        """Listen."""

    def shutdown(self, timeout_seconds: float) -> None:
        """Finish what has begun."""


@dataclass(slots=True)
class Parts:
    """Everything that runs, in the order of the data; `receivers` by "OTLP/gRPC" and the like."""

    receivers: list[tuple[str, Receiver]] = field(default_factory=list)
    connectors: dict[str, Connector] = field(default_factory=dict)
    senders: dict[tuple[str, Signal], QueuedExporter | DirectExporter] = field(default_factory=dict)
    exporters: dict[str, Exporter] = field(default_factory=dict)


class _CountedOutput:
    """A connector's output: what nobody takes is counted under the connector."""

    def __init__(self, connector: str, following: Consumer, telemetry: Telemetry) -> None:
        self._connector = connector
        self._following = following
        self._telemetry = telemetry

    def consume(self, chunk: Chunk) -> None:
        try:
            self._following.consume(chunk)
        except ItemError:
            self._telemetry.items(
                "mlspan_connector_output_failed_{items}", chunk.signal, connector=self._connector
            ).add(chunk.items)
            raise


def wire(
    configuration: Configuration,
    telemetry: Telemetry,
    clock: Callable[[], float] = time.monotonic,
    wall_clock_ns: Callable[[], int] = time.time_ns,
) -> Parts:
    """Build every part and connect them."""
    parts = Parts()
    for component in configuration.of(Kind.EXPORTER):
        exporter = component.type.implementation(component.settings, component.id)
        parts.exporters[component.id] = exporter
        if hasattr(exporter, "counters"):
            telemetry.observe_part("exporter", component.id, exporter.counters)
    for component in configuration.of(Kind.CONNECTOR):
        connector = component.type.implementation(component.settings, component.id, wall_clock_ns)
        connector.outputs = {}
        parts.connectors[component.id] = connector
        telemetry.observe_part("connector", component.id, connector.counters)
    gates = {
        component.id: MemoryGate(component.settings, component.id, clock=clock)  # type: ignore[arg-type]  # its type
        for component in configuration.of(Kind.PROCESSOR)
    }

    entries: dict[tuple[str, Signal], list[Consumer]] = {}
    for spec in configuration.pipelines.values():
        sinks: list[Consumer] = []
        for name in spec.exporters:
            if name in parts.connectors:
                sinks.append(parts.connectors[name])
            else:
                target = configuration.components[Kind.EXPORTER, name]
                sinks.append(_sender(parts, target, spec.signal, telemetry, clock))
        consumer: Consumer = sinks[0] if len(sinks) == 1 else FanOut(sinks)
        for name in reversed(spec.processors):
            consumer = LimitedConsumer(gates[name], consumer, telemetry)
        for name in spec.receivers:
            entries.setdefault((name, spec.signal), []).append(consumer)

    sources: dict[str, dict[Signal, Consumer]] = {}
    for (name, signal), consumers in entries.items():
        sources.setdefault(name, {})[signal] = consumers[0] if len(consumers) == 1 else FanOut(consumers)
    for name, connector in parts.connectors.items():
        for signal, consumer in sources.get(name, {}).items():
            connector.outputs[signal] = _CountedOutput(name, consumer, telemetry)
    for component in configuration.of(Kind.RECEIVER):
        parts.receivers += _otlp(component, sources[component.id], parts, telemetry)
    return parts


def _sender(
    parts: Parts, component: Component, signal: Signal, telemetry: Telemetry, clock: Callable[[], float]
) -> Consumer:
    """Return the exporter's entrance for one signal, the same for all pipelines."""
    key = (component.id, signal)
    if key not in parts.senders:
        exporter = parts.exporters[component.id]
        if component.queue is not None and component.queue.sending_queue.enabled:
            parts.senders[key] = QueuedExporter(exporter, component.id, signal, component.queue, telemetry, clock=clock)
        else:
            parts.senders[key] = DirectExporter(exporter, component.id, signal, component.queue, telemetry, clock=clock)
    return parts.senders[key]


def _otlp(
    component: Component, consumers: dict[Signal, Consumer], parts: Parts, telemetry: Telemetry
) -> list[tuple[str, Receiver]]:
    settings = component.settings
    assert isinstance(settings, OtlpReceiver)
    receivers: list[tuple[str, Receiver]] = []
    if settings.protocols.grpc is not None:
        intake = Intake(component.id, "grpc", consumers, telemetry)
        receivers.append(("OTLP/gRPC", GrpcReceiver(settings.protocols.grpc, intake)))
    if settings.protocols.http is not None:
        receiver = HttpReceiver(settings.protocols.http, Intake(component.id, "http", consumers, telemetry))
        add_routes(receiver, parts.connectors, telemetry)
        receivers.append(("OTLP/HTTP", receiver))
    return receivers
