"""Shared by the tests of the application side: our own failures are raised, spans are kept in memory."""

import os

# Before anything of ours is imported: a failure of ours must fail the test, here and in the processes it starts.
os.environ["MLSPAN_RAISE"] = "true"

from collections.abc import Callable, Iterator, Sequence  # noqa: E402

import mlspan  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402


class Recorder:
    """A tracer provider whose spans are kept."""

    def __init__(self, **options: object) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)  # type: ignore[arg-type]  # a test's own options
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def spans(self) -> Sequence[ReadableSpan]:
        """What has ended since the last call of this."""
        spans = self.exporter.get_finished_spans()
        self.exporter.clear()
        return spans

    def names(self) -> list[str]:
        """Names of what has ended since the last look."""
        return [span.name for span in self.spans()]
