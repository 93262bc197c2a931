"""Shared by the tests of the application side: our own failures are raised, spans are kept in memory."""

import os

# Before anything of ours is imported: a failure of ours must fail the test, here and in the processes it starts.
os.environ["MLSPAN_RAISE"] = "true"

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import mlspan
from mlspan.deferred import deferred


class Recorder:
    """A tracer provider whose spans are kept."""

    def __init__(self, **options: object) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)  # type: ignore[arg-type]  # a test's own options
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def spans(self) -> Sequence[ReadableSpan]:
        """What has ended since the last call of this, or ends once another thread is done with it."""
        deferred.drain(10)
        spans = self.exporter.get_finished_spans()
        self.exporter.clear()
        return spans

    def names(self) -> list[str]:
        """Names of what has ended since the last look."""
        return [span.name for span in self.spans()]


@pytest.fixture
def recorder() -> Recorder:
    """A provider of its own, which keeps its spans; nothing is instrumented yet."""
    return Recorder()


@pytest.fixture
def hooked(recorder: Recorder) -> Iterator[Recorder]:
    """scikit-learn under hooks, spans kept; restored afterwards even when the test fails."""
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        yield recorder
    finally:
        mlspan.uninstrument()


@pytest.fixture
def hook() -> Iterator[Callable[..., Recorder]]:
    """The same with options: ``hook(operations=["predict"])``; `sampler` goes to the provider."""

    def begin(sampler: object = None, **options: object) -> Recorder:
        recorder = Recorder() if sampler is None else Recorder(sampler=sampler)
        mlspan.instrument(tracer_provider=recorder.provider, **options)
        return recorder

    try:
        yield begin
    finally:
        mlspan.uninstrument()


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """(60, 4) numbers, and two classes as integers."""
    X = np.random.default_rng(7).standard_normal((60, 4))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)
