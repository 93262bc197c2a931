"""The processor about itself: a table of metrics, and the counters behind it.

Memory: one number per row and label set; label values are component ids and fixed reasons, never data.
Names follow the Collector's (otelcol_receiver_accepted_spans becomes mlspan_receiver_accepted_spans).
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from mlspan_processor.records import Signal
from mlspan_processor.signals import SIGNALS


class Row(NamedTuple):
    """One metric; "{items}" in the name stands for spans, metric_points and log_records."""

    name: str
    type: Literal["counter", "gauge"]
    unit: str
    description: str
    labels: tuple[str, ...] = ()


_RECEIVER = ("receiver", "transport")
METRICS: tuple[Row, ...] = (
    Row("mlspan_receiver_accepted_{items}", "counter", "{item}", "Taken and acknowledged.", _RECEIVER),
    Row("mlspan_receiver_refused_{items}", "counter", "{item}", "Sent back: try again later.", _RECEIVER),
    Row(
        "mlspan_receiver_failed_{items}",
        "counter",
        "{item}",
        "Sent back for good by the pipeline.",
        _RECEIVER,
    ),
    Row(
        "mlspan_receiver_invalid_requests",
        "counter",
        "{request}",
        "Requests that could not be read, by reason.",
        (*_RECEIVER, "reason"),
    ),
    Row("mlspan_receiver_labels", "counter", "{label}", "Labels posted, by state.", ("receiver", "state")),
    Row("mlspan_processor_refused_{items}", "counter", "{item}", "Refused by a processor.", ("processor",)),
    Row("mlspan_exporter_sent_{items}", "counter", "{item}", "Taken by the backend.", ("exporter",)),
    Row(
        "mlspan_exporter_send_failed_{items}",
        "counter",
        "{item}",
        "Lost after they were taken: reason is permanent, rejected, retries, error or shutdown.",
        ("exporter", "reason"),
    ),
    Row(
        "mlspan_exporter_enqueue_failed_{items}",
        "counter",
        "{item}",
        "Not taken by the exporter's queue: reason is full, too_large or stopping.",
        ("exporter", "reason"),
    ),
    Row(
        "mlspan_exporter_retries",
        "counter",
        "{attempt}",
        "Attempts that failed and were tried again.",
        ("exporter",),
    ),
    Row(
        "mlspan_exporter_queue_size",
        "gauge",
        "1",
        "Waiting or being sent, in the unit of the queue's sizer.",
        ("exporter", "signal"),
    ),
    Row("mlspan_exporter_queue_capacity", "gauge", "1", "The most it may hold.", ("exporter", "signal")),
    Row(
        "mlspan_connector_output_failed_{items}",
        "counter",
        "{item}",
        "What a connector handed on and no exporter took.",
        ("connector",),
    ),
    Row(
        "mlspan_connector_count",
        "counter",
        "1",
        "A connector's own counters, by name.",
        ("connector", "name"),
    ),
    Row(
        "mlspan_exporter_count",
        "counter",
        "1",
        "An exporter's own counters, by name.",
        ("exporter", "name"),
    ),
    Row("mlspan_process_uptime", "counter", "s", "Time since the start."),
    Row("mlspan_process_cpu_seconds", "counter", "s", "User and system time."),
    Row("mlspan_process_memory_rss", "gauge", "By", "Resident memory."),
)


def _expanded() -> Iterable[Row]:
    for row in METRICS:
        if "{items}" in row.name:
            for one in SIGNALS.values():
                yield row._replace(name=row.name.format(items=one.items))
        else:
            yield row


ROWS: Mapping[str, Row] = {row.name: row for row in _expanded()}
"""Every metric by its full name."""

Labels = tuple[tuple[str, str], ...]


class Counter:
    """One series; `add` is safe from any thread."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._value: float = 0
        self._lock = threading.Lock()

    def add(self, amount: float) -> None:
        """Add; a counter never goes down."""
        with self._lock:
            self._value += amount

    @property
    def value(self) -> float:
        """What was added so far."""
        return self._value


class Telemetry:
    """All series of one processor."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, Labels], Counter] = {}
        self._gauges: dict[tuple[str, Labels], Callable[[], float]] = {}
        self._parts: list[tuple[str, str, Callable[[], Mapping[str, float]]]] = []
        started = clock()
        self.observe("mlspan_process_uptime", lambda: clock() - started)
        self.observe("mlspan_process_cpu_seconds", lambda: sum(os.times()[:2]))
        self.observe("mlspan_process_memory_rss", memory_rss_bytes)

    def counter(self, name: str, /, **labels: str) -> Counter:
        """Return the series, the same one for the same labels.

        Raises:
            KeyError: the table has no such metric, or not these labels: a bug of the caller.
        """
        key = (name, _labels(name, labels))
        with self._lock:
            return self._counters.setdefault(key, Counter())

    def items(self, name: str, signal: Signal, /, **labels: str) -> Counter:
        """Return the series of a signal; `name` ends with "_{items}"."""
        return self.counter(name.format(items=SIGNALS[signal].items), **labels)

    def observe(self, name: str, read: Callable[[], float], /, **labels: str) -> None:
        """Have `read` called whenever the metrics are read."""
        with self._lock:
            self._gauges[name, _labels(name, labels)] = read

    def observe_part(
        self, kind: Literal["connector", "exporter"], name: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Publish a connector's or exporter's own counters under its id."""
        with self._lock:
            self._parts.append((kind, name, read))

    def read(self) -> dict[tuple[str, Labels], float]:
        """Return every series' value."""
        with self._lock:
            counters, gauges, parts = dict(self._counters), dict(self._gauges), list(self._parts)
        values = {key: counter.value for key, counter in counters.items()}
        values |= {key: read() for key, read in gauges.items()}
        for kind, part, read_part in parts:
            for name, value in read_part().items():
                values[f"mlspan_{kind}_count", ((kind, part), ("name", name))] = value
        return values

    def value(self, metric: str, /, **labels: str) -> float:
        """Return the sum over all series of a metric that carry these labels."""
        wanted = set(labels.items())
        return sum(value for (one, series), value in self.read().items() if one == metric and wanted <= set(series))

    def prometheus_text(self) -> str:
        """Return the text exposition format 0.0.4."""
        lines: list[str] = []
        last = ""
        for (name, labels), value in sorted(self.read().items()):
            if name != last:
                row, last = ROWS[name], name
                lines += [f"# HELP {name} {row.description}", f"# TYPE {name} {row.type}"]
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            lines.append(f"{name}{{{inner}}} {value:.17g}" if inner else f"{name} {value:.17g}")
        return "\n".join(lines) + "\n"


def memory_rss_bytes() -> int:
    """Return the resident memory of this process; its peak where only that can be had."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource  # noqa: PLC0415  # not on every system; Linux never comes here
        import sys  # noqa: PLC0415

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _labels(name: str, labels: Mapping[str, str]) -> Labels:
    row = ROWS[name]
    if set(labels) != set(row.labels):
        raise KeyError(f'metric "{name}" has the labels {row.labels}, not {tuple(labels)}')
    return tuple((key, labels[key]) for key in row.labels)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
