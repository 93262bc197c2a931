"""Fakes for tests of exporters, connectors and pipelines: a sink that remembers, one that refuses, a clock
that is set.

Part of the package, so that third-party exporters can be tested with them too.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import BaseModel, ConfigDict

from mlspan_processor.config.components import ALL_SIGNALS, ComponentType, Kind
from mlspan_processor.labels import Label, LabelReceipt
from mlspan_processor.records import Chunk, Consumer, ExportResult, ItemError, Signal


class Sink:
    """A consumer that remembers every chunk, in order; safe from any thread."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self.chunks: list[Chunk] = []

    def consume(self, chunk: Chunk) -> None:
        """Remember."""
        with self._arrived:
            self.chunks.append(chunk)
            self._arrived.notify_all()

    @property
    def items(self) -> int:
        """Items in all chunks."""
        return sum(chunk.items for chunk in self.chunks)

    def wait_for(self, items: int, timeout_seconds: float = 20.0) -> None:
        """Return when so many items have come; raise AssertionError when they do not."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: self.items >= items, timeout_seconds):
                raise AssertionError(f"{self.items} of {items} items came within {timeout_seconds} s")


class Refusing:
    """A consumer that raises the same error for every chunk."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def consume(self, chunk: Chunk) -> None:  # noqa: ARG002  # the protocol's
        """Raise."""
        raise self.error


class FakeClock:
    """Monotonic seconds that move only when told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, _: threading.Event, seconds: float) -> None:
        """Move on by `seconds` without waiting: the `sleep` argument of QueuedExporter."""
        self.now += seconds


class NoSettings(BaseModel):
    """Settings of a fake: none."""

    model_config = ConfigDict(extra="forbid")


class FakeExporter:
    """An exporter that remembers what it sends; `answers` says what it does first.

    Attributes:
        sink: what was sent.
        answers: taken one per attempt; an error is raised, a result returned; none left means success.
        gate: attempts wait until it is set, as for a backend that does not answer.
        calls: started, exported and shut down, in order.
    """

    Config: ClassVar[Any] = NoSettings
    signals: ClassVar[frozenset[Signal]] = ALL_SIGNALS
    queued: ClassVar[bool] = True

    def __init__(self, config: Any = None, name: str = "fake") -> None:
        self.config = config
        self.name = name
        self.sink = Sink()
        self.answers: list[ItemError | ExportResult | Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[str] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Remember that it was started."""
        self.calls.append("start")

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:  # noqa: ARG002  # the protocol's
        """Answer as `answers` says."""
        self.gate.wait()
        with self._lock:
            self.calls.append("export")
            answer = self.answers.pop(0) if self.answers else ExportResult()
        if isinstance(answer, Exception):
            raise answer
        self.sink.consume(chunk)
        return answer

    def shutdown(self) -> None:
        """Remember that it was shut down."""
        self.calls.append("shutdown")


class NullExporter(FakeExporter):
    """An exporter that forgets everything: for measurements."""

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:  # noqa: ARG002  # the protocol's
        """Do nothing."""
        return ExportResult()


class FakeConnector:
    """A connector that hands traces on at once; labels and reports are remembered and canned."""

    Config: ClassVar[Any] = NoSettings

    def __init__(self, config: Any = None, name: str = "mlspan", clock: Callable[[], int] | None = None) -> None:
        self.config = config
        self.clock = clock
        self.name = name
        self.outputs: dict[Signal, Consumer] = {}
        self.calls: list[str] = []
        self.taken = Sink()
        self.labels: list[Label] = []

    def consume(self, chunk: Chunk) -> None:
        """Remember; hand on to the output of the same signal."""
        self.taken.consume(chunk)
        if chunk.signal in self.outputs:
            self.outputs[chunk.signal].consume(chunk)

    def start(self) -> None:
        """Remember that it was started."""
        self.calls.append("start")

    def shutdown(self, timeout_seconds: float) -> None:  # noqa: ARG002  # the protocol's
        """Remember that it was shut down."""
        self.calls.append("shutdown")

    def counters(self) -> Mapping[str, int | float]:
        """Return how many items came."""
        return {"items": self.taken.items}

    def submit_labels(self, labels: list[Label]) -> LabelReceipt:
        """Remember; reject labels for the prediction id "unknown"."""
        rejected = tuple((i, "no such prediction") for i, one in enumerate(labels) if one.prediction_id == "unknown")
        self.labels += labels
        return LabelReceipt(joined=len(labels) - len(rejected), rejected=rejected)

    def status(self) -> dict[str, Any]:
        """Return one model."""
        return {"models": [{"name": "fraud-model", "version": "7"}]}

    def incidents(self) -> dict[str, Any]:
        """Return none."""
        return {"open": [], "closed": []}

    def report(
        self, model: str, version: str | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> dict[str, Any]:
        """Return the arguments; KeyError for any model but "fraud-model"."""
        if model != "fraud-model":
            raise KeyError(model)
        return {"model": model, "version": version, "start_ns": start_ns, "end_ns": end_ns}


def fake_connector_type(
    implementation: Any = FakeConnector,
    consumes: frozenset[Signal] = frozenset({Signal.TRACES, Signal.LOGS}),
    produces: frozenset[Signal] = ALL_SIGNALS,
) -> ComponentType:
    """Return the row of a connector for `Components(connectors={"mlspan": …})`."""
    return ComponentType(
        Kind.CONNECTOR, "mlspan", implementation.Config, implementation, consumes, produces, summary="a fake"
    )


def trace_request(spans: int = 1, name: str = "GET /items", attributes: int = 0) -> bytes:
    """Return a serialised request with so many spans of one service; span ids count up from 1."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    for number in range(1, spans + 1):
        span = scope.spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name=name,
            kind=2,
            start_time_unix_nano=1_700_000_000_000_000_000 + number,
            end_time_unix_nano=1_700_000_000_100_000_000 + number,
        )
        for index in range(attributes):
            span.attributes.add(key=f"attribute.number.{index}").value.string_value = f"value-{number}-{index}"
    return request.SerializeToString()


def trace_chunk(spans: int = 1, name: str = "GET /items") -> Chunk:
    """Return `trace_request` as a chunk."""
    return Chunk(Signal.TRACES, trace_request(spans, name), spans)
