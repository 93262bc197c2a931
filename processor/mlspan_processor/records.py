"""What passes between the stages: chunks of OTLP, and the two kinds of failure.

A chunk is one or several serialised ``Export*ServiceRequest`` messages of one signal. Protobuf messages may be
concatenated (repeated fields append), so that batching is joining bytes. A chunk's bytes never change once handed on.
Everything that takes chunks raises one of two errors; anything else that it raises is a bug and counts as permanent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol


class Signal(Enum):
    """The three signals of OTLP; the value is the word used in pipeline ids and metric names."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class ItemError(Exception):
    """Root of the tree::

    ItemError
    ├── RetryableError   the same data may be sent again
    └── PermanentError   it may not
    """


class RetryableError(ItemError):
    """The receiver or backend asks to try again, after `retry_after_seconds` where it said so."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class PermanentError(ItemError):
    """The data is refused for good; sending it again cannot help."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Serialised OTLP of one signal.

    Attributes:
        signal: which request message `data` holds.
        data: one or several concatenated ExportTraceServiceRequest / …Metrics… / …Logs… messages.
        items: spans, metric data points or log records in it.
    """

    signal: Signal
    data: bytes
    items: int


class Consumer(Protocol):
    """Anything that takes chunks: a processor, a connector, an exporter's queue, a fan-out."""

    def consume(self, chunk: Chunk) -> None:
        """Take the chunk over, or raise RetryableError (nothing was taken) or PermanentError."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What a backend said of a chunk it took: OTLP's partial success."""

    rejected_items: int = 0
    message: str = ""


class Exporter(Protocol):
    """Sends chunks to one backend; found by the entry point group ``mlspan_exporter``.

    The class attribute `Config` is a pydantic model of the settings that are the exporter's own; the processor adds
    ``sending_queue``, ``retry_on_failure`` and ``timeout`` to those of exporters whose `queued` is True, and calls
    `export` from its queue's threads. Exporters that answer at once (Prometheus, debug) set `queued` to False.
    """

    Config: ClassVar[Any]
    signals: ClassVar[frozenset[Signal]]
    queued: ClassVar[bool]

    def __init__(self, config: Any, name: str) -> None:
        """`config` is a validated instance of `Config`; `name` the component id, "zipkin/eu"."""

    def start(self) -> None:
        """Open sockets and files; raise OSError or ValueError with a message that names the endpoint."""

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:
        """Send; raise RetryableError or PermanentError."""

    def shutdown(self) -> None:
        """Close; safe twice and before start."""


Counters = Mapping[str, int | float]
