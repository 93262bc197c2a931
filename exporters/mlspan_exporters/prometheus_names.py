"""Stage 8, Prometheus names: what OTLP's metric and attribute names become.

Reads names and UCUM units; gives names of Prometheus' classic alphabet. The same rules as the Collector's and
Prometheus' own OTLP endpoint, so that dashboards fit whichever way the metrics came.
Source: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

import re
from collections.abc import Iterable
from typing import Final

UNITS: Final = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tebibytes",
    "KBy": "kilobytes",
    "kBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "1": "",
    "%": "percent",
}
PER_UNITS: Final = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "y": "year",
}
NOT_IN_METRIC: Final = re.compile(r"[^a-zA-Z0-9:]+")
NOT_IN_LABEL: Final = re.compile(r"[^a-zA-Z0-9]+")
RESERVED_LABELS: Final = frozenset({"le", "quantile"})


def metric_name(name: str, unit: str, kind: str, namespace: str = "", *, suffixes: bool = True) -> str:
    """Return the name in Prometheus, "" where no character of the name can stay.

    Args:
        name: OTLP's name, "ml.operation.duration".
        unit: its UCUM unit, "s".
        kind: counter, gauge, histogram or summary.
        namespace: what to put in front.
        suffixes: whether unit and type are told at the end.

    >>> metric_name("ml.operation.duration", "s", "histogram")
    'ml_operation_duration_seconds'
    >>> metric_name("ml.prediction.count", "{row}", "counter")
    'ml_prediction_count_total'
    """
    words = _words(name)
    if not words:
        return ""
    if suffixes:
        words += [suffix for suffix in unit_suffixes(unit) if suffix not in words]
        if kind == "counter":
            words = [word for word in words if word != "total"] + ["total"]
        if kind == "gauge" and unit == "1":
            words = [word for word in words if word != "ratio"] + ["ratio"]
    joined = "_".join(_words(namespace) + words)
    return f"_{joined}" if joined[0].isdigit() else joined


def unit_suffixes(unit: str) -> list[str]:
    """Return what a unit adds to a name: at most the unit itself and what it is per.

    >>> unit_suffixes("By/s"), unit_suffixes("{row}"), unit_suffixes("1")
    (['bytes', 'per_second'], [], [])
    """
    main, _, per = unit.partition("/")
    words = [_unit_word(main, UNITS), _unit_word(per, PER_UNITS)]
    return [f"{prefix}{word}" for prefix, word in zip(("", "per_"), words, strict=True) if word]


def unit_of(name: str, unit: str, kind: str) -> str:
    """Return OpenMetrics' UNIT of a family, "" where its name (without `_total`) does not end in it."""
    word = "_".join(unit_suffixes(unit)) or ("ratio" if unit == "1" and kind == "gauge" else "")
    return word if word and name.endswith(f"_{word}") else ""


def label_name(key: str) -> str:
    """Return an attribute's name as a label.

    >>> label_name("ml.model.name"), label_name("1st"), label_name("__name__"), label_name("le")
    ('ml_model_name', 'key_1st', 'key_name_', 'key_le')
    """
    name = NOT_IN_LABEL.sub("_", key)
    if name[:1].isdigit() or name in RESERVED_LABELS:
        return f"key_{name}"
    if name.startswith("_") or not name:
        return f"key{name}"
    return name


def labels_of(attributes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return attributes as labels; of keys that become one label the values are joined by ";", in order.

    >>> labels_of([("a_b", "2"), ("a.b", "1")])
    {'a_b': '1;2'}
    """
    labels: dict[str, str] = {}
    for key, value in sorted(attributes):
        name = label_name(key)
        labels[name] = f"{labels[name]};{value}" if name in labels else value
    return labels


def label_text(labels: dict[str, str]) -> str:
    """Return labels as they stand between braces, in the order given; empty ones are none to Prometheus."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in labels.items() if value)


def escape(value: str) -> str:
    """Return a label's value as it stands between quotes."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


def _unit_word(unit: str, words: dict[str, str]) -> str:
    unit = unit.strip()
    if not unit or "{" in unit or "}" in unit:
        return ""
    return "_".join(_words(words.get(unit, unit)))


def _words(name: str) -> list[str]:
    return [word for word in NOT_IN_METRIC.split(name) if word]
