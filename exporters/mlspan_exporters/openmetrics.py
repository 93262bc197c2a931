"""Stage 8, the text that Prometheus scrapes: OpenMetrics 1.0, and the classic format before it.

Reads a `Store`; gives bytes. Label text is rendered when a series is stored, so that a scrape costs about a
microsecond a sample. Exemplars stand on counters and histogram buckets, where OpenMetrics has them, and
nowhere in the classic format.
Source: https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from typing import Final

from .exemplars import number, seconds_text
from .prometheus_series import Histogram, Number, Summary
from .prometheus_store import Family, Store

OPENMETRICS: Final = "application/openmetrics-text"
OPENMETRICS_TYPE: Final = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
CLASSIC_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def exposition(store: Store, namespace: str, *, openmetrics: bool, targets: bool, timestamps: bool) -> bytes:
    """Return all series as text.

    Args:
        store: what is shown.
        namespace: what stands before `target_info`; the families have it already.
        openmetrics: OpenMetrics, with exemplars, or the classic format.
        targets: whether to show `target_info`.
        timestamps: whether samples carry the time of their data point.
    """
    lines: list[str] = []
    if targets and store.targets:
        _write_targets(lines, store, namespace, openmetrics=openmetrics)
    for name in sorted(store.families):
        _write_family(lines, store.families[name], openmetrics=openmetrics, timestamps=timestamps)
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()


def prefers_openmetrics(accept: str) -> bool:
    """Tell whether an Accept header asks for OpenMetrics at least as much as for plain text.

    >>> prefers_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3")
    True
    >>> prefers_openmetrics("text/html,*/*;q=0.8")
    False
    """
    quality = {OPENMETRICS: 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        if media in quality:
            wanted = 1.0
            for parameter in parameters:
                if parameter.startswith("q="):
                    wanted = _quality(parameter.removeprefix("q="))
            quality[media] = max(quality[media], wanted)
    return quality[OPENMETRICS] > 0 and quality[OPENMETRICS] >= quality["text/plain"]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _write_targets(lines: list[str], store: Store, namespace: str, *, openmetrics: bool) -> None:
    name = f"{namespace}_target" if namespace else "target"
    shown, kind = (name, "info") if openmetrics else (f"{name}_info", "gauge")
    lines += (f"# HELP {shown} Target metadata\n", f"# TYPE {shown} {kind}\n")
    lines += [f"{name}_info{{{target.labels}}} 1\n" for _, target in sorted(store.targets.items())]


def _write_family(lines: list[str], family: Family, *, openmetrics: bool, timestamps: bool) -> None:
    sample = f"{family.name}_total" if family.kind == "counter" else family.name
    shown = family.name if openmetrics else sample
    if family.help:
        lines.append(f"# HELP {shown} {_help_text(family.help, openmetrics=openmetrics)}\n")
    lines.append(f"# TYPE {shown} {family.kind}\n")
    if openmetrics and family.unit:
        lines.append(f"# UNIT {shown} {family.unit}\n")
    for labels, series in family.series.items():
        time = _time_text(series.time_ns, openmetrics=openmetrics) if timestamps else ""
        if isinstance(series, Number):
            exemplar = series.exemplar if openmetrics else ""
            lines.append(f"{_named(sample, labels)} {number(series.value)}{time}{exemplar}\n")
        elif isinstance(series, Histogram):
            _write_histogram(lines, sample, labels, series, time, openmetrics=openmetrics)
        else:
            _write_summary(lines, sample, labels, series, time)


def _write_histogram(
    lines: list[str], name: str, labels: str, series: Histogram, time: str, *, openmetrics: bool
) -> None:
    prefix = f'{name}_bucket{{{labels}{"," if labels else ""}le="'
    exemplars = series.exemplars if openmetrics else {}
    total = 0
    for position, (bound, count) in enumerate(zip((*series.bounds, float("inf")), series.counts, strict=True)):
        total += count
        lines.append(f'{prefix}{number(bound)}"}} {total}{time}{exemplars.get(position, "")}\n')
    # OpenMetrics wants count and sum both or neither, and no sum that can fall.
    rising = not series.bounds or series.bounds[0] >= 0
    has_sum = series.sum is not None and series.sum >= 0 and (rising or not openmetrics)
    if has_sum and series.sum is not None:
        lines.append(f"{_named(f'{name}_sum', labels)} {number(series.sum)}{time}\n")
    if has_sum or not openmetrics:
        lines.append(f"{_named(f'{name}_count', labels)} {series.count}{time}\n")


def _write_summary(lines: list[str], name: str, labels: str, series: Summary, time: str) -> None:
    prefix = f'{name}{{{labels}{"," if labels else ""}quantile="'
    lines += [f'{prefix}{number(quantile)}"}} {number(value)}{time}\n' for quantile, value in series.quantiles]
    lines.append(f"{_named(f'{name}_sum', labels)} {number(series.sum)}{time}\n")
    lines.append(f"{_named(f'{name}_count', labels)} {series.count}{time}\n")


def _named(name: str, labels: str) -> str:
    return f"{name}{{{labels}}}" if labels else name


def _time_text(time_ns: int, *, openmetrics: bool) -> str:
    return f" {seconds_text(time_ns)}" if openmetrics else f" {time_ns // 1_000_000}"


def _help_text(text: str, *, openmetrics: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped
