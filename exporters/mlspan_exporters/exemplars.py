"""Stage 8, exemplars: what stands behind a sample in OpenMetrics and leads from a figure to a trace.

Reads OTLP exemplars; gives text. The ids come first, then of the other attributes those that fit into the 128
characters that OpenMetrics allows.
Source: https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md#exemplars
"""

from collections.abc import Iterable, Sequence
from math import inf, isnan
from typing import Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar

from .prometheus_names import label_text, labels_of
from .values import text_of

MAX_CHARACTERS: Final = 128
"""OpenMetrics' bound on names and values together."""


def exemplars_by_bucket(exemplars: Iterable[Exemplar], bounds: Sequence[float]) -> dict[int, str]:
    """Return the text of the largest exemplar of each bucket, by the bucket's position."""
    largest: dict[int, tuple[float, str]] = {}
    for exemplar in exemplars:
        value = exemplar_value(exemplar)
        text = exemplar_text(exemplar)
        if isnan(value) or not text:
            continue
        position = next((i for i, bound in enumerate(bounds) if value <= bound), len(bounds))
        if position not in largest or value > largest[position][0]:
            largest[position] = (value, text)
    return {position: text for position, (_, text) in largest.items()}


def exemplar_value(exemplar: Exemplar) -> float:
    """Return the measured value."""
    return float(exemplar.as_int if exemplar.WhichOneof("value") == "as_int" else exemplar.as_double)


def exemplar_text(exemplar: Exemplar) -> str:
    """Return what stands behind a sample, "" for one that points nowhere.

    The ids come first; of the other attributes those that fit into 128 characters with them.
    """
    labels: dict[str, str] = {}
    if any(exemplar.trace_id):
        labels["trace_id"] = exemplar.trace_id.hex()
    if any(exemplar.span_id):
        labels["span_id"] = exemplar.span_id.hex()
    left = MAX_CHARACTERS - sum(len(name) + len(value) for name, value in labels.items())
    filtered = labels_of((pair.key, text_of(pair.value)) for pair in exemplar.filtered_attributes)
    for name, value in filtered.items():
        if name not in labels and value and len(name) + len(value) <= left:
            labels[name] = value
            left -= len(name) + len(value)
    if not labels:
        return ""
    time = f" {seconds_text(exemplar.time_unix_nano)}" if exemplar.time_unix_nano else ""
    return f" # {{{label_text(labels)}}} {number(exemplar_value(exemplar))}{time}"


def number(value: float) -> str:
    """Return a number as both formats write it.

    >>> number(3), number(0.5), number(float("inf")), number(float("nan"))
    ('3', '0.5', '+Inf', 'NaN')
    """
    if isnan(value):
        return "NaN"
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def seconds_text(time_ns: int) -> str:
    """Return a time in seconds with milliseconds, exactly."""
    return f"{time_ns // 1_000_000_000}.{time_ns // 1_000_000 % 1000:03d}"
