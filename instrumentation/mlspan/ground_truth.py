"""Stage 4, feedback: the true answer of a prediction, sent when it is known.

Reads ids and labels, writes one span per label, with a link to the prediction's span where the id tells it. A span that
the sampler refuses becomes a log event with the same attributes, since labels must not be sampled twice.
Guarantee: never raises. Needs no instrumentation in the process, only an OpenTelemetry SDK.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from time import time_ns
from typing import Any, Final

import numpy as np
from opentelemetry import _logs, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Tracer

import mlspan
from mlspan import runtime
from mlspan.columns import text_of
from mlspan.guard import failed, warn_once
from mlspan.models import SCOPE
from mlspan.prediction import span_of
from mlspan.semconv import attributes as names
from mlspan.semconv.events import ML_FEEDBACK

OPERATION: Final = "feedback"


def feedback(
    prediction_id: object,
    label: object,
    model: str | None = None,
    timestamp: datetime | float | None = None,
) -> None:
    """Say what the right answer of a prediction was.

    Args:
        prediction_id: the id from `prediction_context`, or a sequence of them.
        label: the true class or number, or as many of them as ids. Numbers travel as double, bool and everything else
            as its text (bytes as UTF-8), as classes do. Of a multilabel model, a mapping of outputs to whether
            they hold (those that it does not name do not), the names of those that hold, or 0 or 1 for each output in
            the model's order; of several ids as many of these, or a matrix. Missing ones (None, NaN) are not
            sent.
        model: the model's name, where an id may belong to several.
        timestamp: when the label was known, as `datetime` or seconds since 1970; None: now.
    """
    try:
        _send(prediction_id, label, model, timestamp)
    except Exception:  # noqa: BLE001 - the user's code goes on
        failed("feedback")


def label_of(label: object) -> str | float | tuple[str, ...] | tuple[bool, ...]:
    """How a label travels: a number as float, the truth of several outputs as names or booleans, anything else as text.

    >>> label_of(3), label_of(True), label_of("late"), label_of({"spam": 1, "urgent": 0}), label_of([1, 0])
    (3.0, 'True', 'late', ('spam',), (True, False))
    """
    item = getattr(label, "item", None)
    if item is not None and getattr(label, "size", None) == 1:
        label = item()  # a scalar of numpy
    if isinstance(label, (int, float)) and not isinstance(label, bool):
        return float(label)
    several = _several(label)
    return text_of(label) if several is None else several


def _several(label: object) -> tuple[str, ...] | tuple[bool, ...] | None:
    """The truth of several outputs: those that hold, or whether each does; None for anything else."""
    if isinstance(label, Mapping):
        truths = list(label.values())
        return tuple(text_of(name) for name, holds in label.items() if holds) if _are_indicators(truths) else None
    if isinstance(label, (set, frozenset)):
        return tuple(sorted(map(str, label))) if all(isinstance(one, str) for one in label) else None
    listed = _listed(label)
    if listed is None:
        return None
    if all(isinstance(one, str) for one in listed):
        return tuple(map(str, listed))
    return tuple(map(bool, listed)) if _are_indicators(listed) else None


def _are_indicators(values: Sequence[Any]) -> bool:
    return all(isinstance(one, (bool, int, float, np.generic)) and one in {0, 1} for one in values)


def _send(prediction_id: object, label: object, model: str | None, timestamp: datetime | float | None) -> None:
    ids = _listed(prediction_id)
    labels = [label] if ids is None else None if isinstance(label, Mapping) else _listed(label)
    if ids is None:
        ids = [prediction_id]
    if labels is None or len(ids) != len(labels):
        count = 1 if labels is None else len(labels)
        warn_once("feedback: labels", "feedback got %d prediction ids and %d labels; none is sent", len(ids), count)
        return
    running = runtime.current()
    emitter = None if running is None else running.emitter
    tracer = trace.get_tracer(
        SCOPE, mlspan.__version__, None if emitter is None else emitter.tracer_provider, names.SCHEMA_URL
    )
    title = OPERATION if model is None else f"{OPERATION} {model}"
    time = _nanoseconds(timestamp)
    for one_id, one_label in zip(ids, labels, strict=True):
        if _is_missing(one_id) or _is_missing(one_label):
            warn_once(
                "feedback: missing",
                "feedback was given a missing prediction id or label (None, NaN, NA); such labels are not sent",
            )
            continue
        attributes: dict[str, Any] = {
            names.ML_PREDICTION_ID: str(one_id),
            names.ML_FEEDBACK_LABEL: label_of(one_label),
        }
        if model is not None:
            attributes[names.ML_MODEL_NAME] = model
        if not _send_span(tracer, title, attributes, time):
            _send_event(attributes, time)
        elif emitter is not None:
            emitter.note_end()


def _send_span(tracer: Tracer, title: str, attributes: dict[str, Any], time: int | None) -> bool:
    """Whether the label went out as a span."""
    target = span_of(attributes[names.ML_PREDICTION_ID])
    span = tracer.start_span(
        title,
        attributes={names.ML_OPERATION_NAME: OPERATION, **attributes},
        links=[] if target is None else [Link(target)],
        start_time=time,
    )
    sampled = span.is_recording() and span.get_span_context().trace_flags.sampled
    span.end(time)
    return sampled


def _send_event(attributes: dict[str, Any], time: int | None) -> None:
    provider = _logs.get_logger_provider()
    if type(provider).__module__.startswith("opentelemetry._logs"):
        warn_once(
            "feedback: not sent",
            "a label was not sent: its span was not sampled, and no OpenTelemetry logger provider is set up that "
            "could take it as an event",
        )
        return
    target = span_of(attributes[names.ML_PREDICTION_ID])
    logger = provider.get_logger(SCOPE, mlspan.__version__, names.SCHEMA_URL)
    context = None if target is None else trace.set_span_in_context(NonRecordingSpan(target), Context())
    logger.emit(
        _logs.LogRecord(
            timestamp=time or time_ns(),
            severity_number=_logs.SeverityNumber.INFO,
            event_name=ML_FEEDBACK,
            attributes=attributes,
            context=context,
        )
    )


def _is_missing(value: object) -> bool:
    """Whether it is None, NaN, NaT or pandas' NA."""
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN and NaT
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def _listed(value: object) -> Sequence[object] | None:
    """Many values as a list; None for a single one."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        return None
    for convert in ("toarray", "to_numpy"):  # of a sparse matrix, a frame
        made = getattr(value, convert, None) if getattr(value, "ndim", 1) == 2 else None
        if made is not None:
            return list(made())
    return list(value)


def _nanoseconds(timestamp: datetime | float | None) -> int | None:
    if timestamp is None:
        return None
    seconds = timestamp.timestamp() if isinstance(timestamp, datetime) else float(timestamp)
    return round(seconds * 1e9)
