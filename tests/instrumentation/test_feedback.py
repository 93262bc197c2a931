"""Feedback: one span per label, linked to the prediction, or a log event where the span is not sampled."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind
from scipy import sparse
from sklearn.linear_model import LogisticRegression

import mlspan
from mlspan.ground_truth import label_of
from mlspan.prediction import span_of
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("late", "late"),
        (True, "True"),
        (np.bool_(False), "False"),
        (3, 3.0),
        (2.5, 2.5),
        (np.float32(0.5), 0.5),
        (np.int64(4), 4.0),
        (np.str_("on time"), "on time"),
        (np.array(7), 7.0),
        (b"on time", "on time"),
        (np.bytes_(b"on time"), "on time"),
        (None, "None"),
        (datetime(2026, 1, 2, tzinfo=UTC).date(), "2026-01-02"),
    ],
)
def test_labels(label: object, expected: str | float) -> None:
    """Numbers travel as double, everything else as its text, as classes do."""
    assert label_of(label) == expected
    assert type(label_of(label)) is type(expected)


def test_feedback_span(hooked: Recorder, data: Data) -> None:
    """A label is a span with exactly these attributes, and one link to its prediction."""
    model = LogisticRegression().fit(*data)
    with mlspan.prediction_context() as context:
        model.predict(data[0][:2])
    hooked.spans()
    mlspan.feedback(context.ids[1], "late", model="fraud-model", timestamp=datetime(2026, 1, 2, tzinfo=UTC))
    (span,) = hooked.spans()
    assert (span.name, span.kind) == ("feedback fraud-model", SpanKind.INTERNAL)
    assert dict(span.attributes or {}) == {
        "ml.operation.name": "feedback",
        "ml.prediction.id": context.ids[1],
        "ml.feedback.label": "late",
        "ml.model.name": "fraud-model",
    }
    (link,) = span.links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}-1" == context.ids[1]
    assert span.start_time == span.end_time == int(datetime(2026, 1, 2, tzinfo=UTC).timestamp()) * 10**9
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, dict(span.instrumentation_scope.attributes or {})) == ("mlspan", {})


def test_own_ids_have_no_link(hooked: Recorder) -> None:
    """The user's own key says nothing about a span."""
    mlspan.feedback("order-17", 12.5)
    (span,) = hooked.spans()
    assert span.name == "feedback"
    assert not span.links
    assert (span.attributes or {})["ml.feedback.label"] == 12.5
    assert "ml.model.name" not in (span.attributes or {})


def test_many(hooked: Recorder) -> None:
    """Many labels are as many spans; arrays are sequences."""
    mlspan.feedback(["a", "b", 3], np.array(["x", "y", "z"]))
    found = [(dict(span.attributes or {})) for span in hooked.spans()]
    assert [(one["ml.prediction.id"], one["ml.feedback.label"]) for one in found] == [
        ("a", "x"),
        ("b", "y"),
        ("3", "z"),
    ]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ({"spam": 1, "urgent": 0, "ad": True}, ("spam", "ad")),
        ({"spam": 0}, ()),
        (["spam", "ad"], ("spam", "ad")),
        ({"spam", "ad"}, ("ad", "spam")),
        ([], ()),
        ([1, 0, 1], (True, False, True)),
        ([True, False], (True, False)),
        (np.array([0, 1]), (False, True)),
        (np.array([0.0, 1.0]), (False, True)),
        (np.array(["a", "b"]), ("a", "b")),
        (pd.Series([1, 0]), (True, False)),
        ([0.5, 2], "[0.5, 2]"),
        ([1, None], "[1, None]"),
        ({"spam": "yes"}, "{'spam': 'yes'}"),
    ],
)
def test_labels_of_several_outputs(hooked: Recorder, label: object, expected: object) -> None:
    """Names of the outputs that hold, or a boolean for each; what is neither travels as text, to be refused."""
    mlspan.feedback("order-17", label)
    (span,) = hooked.spans()
    assert (span.attributes or {})["ml.feedback.label"] == expected


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[1, 0], [0, 1]]),
        [[1, 0], [0, 1]],
        pd.DataFrame({"a": [1, 0], "b": [0, 1]}),
        sparse.csr_matrix([[1, 0], [0, 1]]),
    ],
)
def test_a_matrix_of_labels(hooked: Recorder, labels: object) -> None:
    """A row for each id."""
    mlspan.feedback(["a", "b"], labels)
    found = [dict(span.attributes or {}) for span in hooked.spans()]
    assert [(one["ml.prediction.id"], one["ml.feedback.label"]) for one in found] == [
        ("a", (True, False)),
        ("b", (False, True)),
    ]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), np.datetime64("NaT", "ns"), pd.NA, pd.NaT])
def test_missing_labels_are_not_sent(
    hooked: Recorder, missing: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome that is not known yet is no class of its own; the others of the call are sent."""
    monkeypatch.setattr("mlspan.guard._seen", set())
    mlspan.feedback(["a", "b"], [missing, "late"])
    mlspan.feedback("a", missing)
    mlspan.feedback(missing, "late")
    (span,) = hooked.spans()
    assert (span.attributes or {})["ml.prediction.id"] == "b"
    assert sum("missing prediction id or label" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("labels", ["x", ["x"], ["x", "y", "z"], {"x": 1, "y": 0}])
def test_numbers_that_do_not_fit(
    hooked: Recorder, caplog: pytest.LogCaptureFixture, labels: Any, monkeypatch: Any
) -> None:
    """When labels and ids are not as many, none is sent, and the log says so."""
    monkeypatch.setattr("mlspan.guard._seen", set())
    mlspan.feedback(["a", "b"], labels)
    assert hooked.names() == []
    assert "2 prediction ids" in caplog.text


@pytest.mark.parametrize(
    "text", ["order-1-2", "0" * 32 + "-" + "1" * 16 + "-0", "g" * 32 + "-" + "1" * 16 + "-0", "1" * 32 + "-" + "1" * 16]
)
def test_ids_that_name_no_span(text: str) -> None:
    """Only valid ids of the default form name a span."""
    assert span_of(text) is None


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryLogRecordExporter]:
    """A logger provider that keeps its records."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # upstream's constructor has no types
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr("opentelemetry._logs.get_logger_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def test_event_when_not_sampled(hook: Callable[..., Recorder], events: InMemoryLogRecordExporter) -> None:
    """A label whose span the sampler refuses is a log event with the same attributes."""
    recorder = hook(sampler=ALWAYS_OFF)
    prediction = "a" * 32 + "-" + "b" * 16 + "-3"
    mlspan.feedback(prediction, True, model="m", timestamp=1.5)
    assert recorder.names() == []
    (data,) = events.get_finished_logs()
    record = data.log_record
    assert record.event_name == "ml.feedback"
    assert dict(record.attributes or {}) == {
        "ml.prediction.id": prediction,
        "ml.feedback.label": "True",
        "ml.model.name": "m",
    }
    assert record.timestamp == 1_500_000_000
    assert (record.trace_id, record.span_id) == (int("a" * 32, 16), int("b" * 16, 16))


def test_nothing_takes_it(hook: Callable[..., Recorder], caplog: pytest.LogCaptureFixture) -> None:
    """Where neither takes the label, the log says so once."""
    hook(sampler=ALWAYS_OFF)
    assert type(_logs.get_logger_provider()).__module__.startswith("opentelemetry._logs")
    mlspan.feedback("a", "x")
    mlspan.feedback("b", "x")
    assert len([record for record in caplog.records if "a label was not sent" in record.getMessage()]) <= 1
    assert mlspan.guard.failures()["feedback: not sent"] >= 2


def test_never_raises(hooked: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A label that cannot be written as text is our problem, not the user's."""
    monkeypatch.setattr("mlspan.guard._raise", False)

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    mlspan.feedback("a", Bad())
    assert "mlspan failed in feedback" in caplog.text
