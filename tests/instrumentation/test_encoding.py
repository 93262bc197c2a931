"""Payloads go as bytes only where everything behind the provider takes them."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sklearn.linear_model import LinearRegression

from mlspan import payload
from mlspan.encoding import Encoding
from mlspan.hooks.sklearn import SklearnInstrumentor

MODEL = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])


class _JsonExporter(SpanExporter):
    """Somebody's exporter."""

    def export(self, spans: Any) -> SpanExportResult:
        """Make JSON of the attributes."""
        for span in spans:
            json.dumps(dict(span.attributes))
        return SpanExportResult.SUCCESS


class _OtherProcessor(SpanProcessor):
    """Somebody's processor, which may do anything at the end of a span."""

    def on_end(self, span: ReadableSpan) -> None:
        """Make JSON of the attributes."""
        json.dumps(dict(span.attributes or {}))


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    """A provider that the hooks use."""
    provider = TracerProvider(shutdown_on_exit=False)
    hooks = SklearnInstrumentor()
    hooks.instrument(tracer_provider=provider)
    yield provider
    hooks.uninstrument()
    provider.shutdown()


@pytest.mark.parametrize(
    ("processors", "carries"),
    [
        ([], True),
        ([SimpleSpanProcessor(InMemorySpanExporter())], True),
        ([SimpleSpanProcessor(OTLPSpanExporter())], True),
        ([SimpleSpanProcessor(ConsoleSpanExporter(out=io.StringIO()))], False),
        ([SimpleSpanProcessor(InMemorySpanExporter()), SimpleSpanProcessor(_JsonExporter())], False),
        ([_OtherProcessor()], False),
    ],
)
def test_bytes_only_where_all_exporters_carry_them(processors: list[SpanProcessor], carries: bool) -> None:
    """OTLP and the in-memory exporter carry bytes; the console, and what is not known, get text."""
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    encoding = Encoding(provider)
    encoding.has_changed()
    assert encoding.carries_bytes is carries


def test_a_batch_processor_over_otlp_carries_bytes() -> None:
    """The usual set-up, a batch processor over OTLP, is recognised."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    encoding = Encoding(provider)
    encoding.has_changed()
    provider.shutdown()
    assert encoding.carries_bytes is True


def test_the_console_exporter_prints_model_spans(provider: TracerProvider) -> None:
    """The SDK's console exporter fails on bytes; it gets text that holds the same payload."""
    out = io.StringIO()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out)))
    MODEL.predict([[2.0]])
    attributes = json.loads(out.getvalue())["attributes"]
    assert payload.decode(attributes["ml.payload"]).cells.view("<f4").tolist() == [[2.0]]


def test_an_exporter_that_is_added_later_is_noticed(provider: TracerProvider) -> None:
    """A console exporter added after the first span turns bytes into text from the next span on."""
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    MODEL.predict([[2.0]])
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=io.StringIO())))
    MODEL.predict([[2.0]])
    kinds = [type((span.attributes or {})["ml.payload"]) for span in memory.get_finished_spans()]
    assert kinds == [bytes, str]
