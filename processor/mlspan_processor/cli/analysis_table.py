"""The result of an analysis for people: one sentence, a row for each window, then the worst window in detail."""

import sys
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlspan_processor.analysis import Analysis, ColumnDrift, Metric, Window
from mlspan_processor.analysis.levels import ALERTING
from mlspan_processor.analysis.result import ALERT_KINDS

_UNKNOWN = "–"
_MOST_WINDOWS = 60
_MOST_FEATURES = 15
_MOST_NAMED = 8
_PLAIN_WIDTH = 200


def console_of(*, markup: bool = True) -> Console:
    """Standard output: as wide as the terminal, and wide enough where it is none."""
    return Console(markup=markup, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


def show(result: Analysis, console: Console) -> None:
    """Write all of it."""
    alerted = result.alerted
    noun = "window" if len(result.windows) == 1 else "windows"
    raised = f"{len(alerted)} of {len(result.windows)} {noun} raised an alert" if alerted else "no alert"
    told = f": {_summary(alerted)}" if alerted else f" in {len(result.windows)} {noun}"
    _line(console, f"[bold]{raised}[/bold]{escape(told)}")
    about = f"{result.task} model" if result.task else "features only"
    _line(
        console,
        escape(
            f"{about}; {result.current['name']} ({result.current['rows']:,} rows) against"
            f" {result.reference['name']} ({result.reference['rows']:,} rows)"
        ),
    )
    for note in (*result.inferred, *result.notes):
        _line(console, escape(f"note: {note}"))
    _windows(result, console)
    if result.incidents:
        _line(console, f"\n[bold]{_count(len(result.incidents), 'incident')}[/bold]")
        for one in result.incidents:
            _line(console, escape(f"  {one.start} to {one.end} ({one.status}, {one.severity}): {one.summary}"))
    _window(result, worst(result), console)


def worst(result: Analysis) -> Window:
    """The window with the most important alert, then the most alerts; the last one where all are quiet."""

    def weight(window: Window) -> tuple[int, int, float]:
        first = min((ALERT_KINDS.index(one.kind) for one in window.alerts), default=len(ALERT_KINDS))
        return -first, len(window.alerts), max((abs(one.effect or 0.0) for one in window.alerts[:1]), default=0.0)

    return max(result.windows, key=weight) if result.alerted else result.windows[-1]


def _windows(result: Analysis, console: Console) -> None:
    key = next(iter(ALERTING.get(result.task or "", ())), None)
    columns = ["start", "end", "rows", *([key, "estimated", "95 % band"] if key else []), "drifted", "alerts"]
    table = _table(*columns)
    shown = result.windows
    if len(shown) > _MOST_WINDOWS:
        shown = result.alerted[:_MOST_WINDOWS]
    for window in shown:
        cells = [str(window.start), str(window.end), f"{window.rows:,}"]
        if key:
            metric = window.metrics.get(key, Metric())
            cells += [_number(metric.realised), _number(metric.estimated), _band(metric.low, metric.high)]
        drifted = sum(bool(one.drifted) for one in window.features.values())
        cells += [f"{drifted} of {len(window.features)}", ", ".join(one.kind for one in window.alerts) or "quiet"]
        table.add_row(*map(escape, cells))
    console.print()
    console.print(table)
    if len(shown) < len(result.windows):
        _line(console, f"… and {len(result.windows) - len(shown):,} more windows (--json has all)")


def _window(result: Analysis, window: Window, console: Console) -> None:
    which = "the worst window" if len(result.windows) > 1 and window.alerts else "window"
    _line(console, f"\n[bold]{which}, {window.start} to {window.end}[/bold] ({window.rows:,} rows)")
    for alert in window.alerts:
        _line(console, escape(f"  {alert.severity}: {alert.kind}: {alert.message}"))
    if window.metrics:
        table = _table("metric", "realised", "95 % band", "estimated", "95 % band", "reference", "labels")
        for name, one in window.metrics.items():
            table.add_row(
                name,
                _number(one.realised),
                _band(one.realised_low, one.realised_high),
                _number(one.estimated),
                _band(one.low, one.high),
                _number(one.reference),
                f"{one.labels:,}",
            )
        console.print()
        console.print(table)
        _reasons({name: one.reason for name, one in window.metrics.items()}, console)
    columns = sorted(window.features.items(), key=lambda pair: -(pair[1].effect or -1.0))
    answers = {"(prediction)": window.prediction, "(score)": window.score, "(label)": window.label}
    answers |= {f"({role} of {output})": one for output, roles in window.outputs.items() for role, one in roles.items()}
    rows = [(name, one) for name, one in answers.items() if one.p_value is not None] + columns[:_MOST_FEATURES]
    if rows:
        console.print()
        console.print(_drift(rows))
        _reasons({name: one.reason for name, one in rows if one.drifted is None}, console)
    if len(columns) > _MOST_FEATURES:
        _line(console, f"… and {len(columns) - _MOST_FEATURES} features with less effect (--json has all)")
    for name, one in window.fairness.items():
        for gap, figure in one["gaps"].items():
            if figure["value"] is not None:
                band, groups = _band(figure["low"], figure["high"]), " and ".join(figure["groups"])
                _line(console, escape(f"{gap} by {name}: {_number(figure['value'])} ({band}) between {groups}"))
    joint = window.multivariate
    if joint.p_value is not None:
        _line(console, f"features together: effect {_number(joint.effect)}, p {_number(joint.p_value)}")


def _drift(rows: Iterable[tuple[str, ColumnDrift]]) -> Table:
    table = _table("column", "type", "drifted", "effect", "adjusted p", "psi", "js", "ks", "missing")
    for name, one in rows:
        drifted = {True: "yes", False: "no", None: _UNKNOWN}[one.drifted]
        cells = [name, one.type, drifted, *map(_number, (one.effect, one.p_adjusted, one.psi, one.js, one.ks))]
        missing = _UNKNOWN if one.missing is None else f"{one.missing:.1%}"
        table.add_row(*map(escape, [*cells, missing]))
    return table


def _reasons(by_name: Mapping[str, str], console: Console) -> None:
    """Each reason once, with all that it is for."""
    names: dict[str, list[str]] = {}
    for name, reasons in by_name.items():
        for reason in filter(None, reasons.split("; ")):
            names.setdefault(reason, []).append(name)
    for reason, found in names.items():
        shown = ", ".join(found[:_MOST_NAMED]) + (", …" if len(found) > _MOST_NAMED else "")
        _line(console, escape(f" {shown}: {reason}"))


def _table(*columns: str) -> Table:
    """A table whose rows stay on their line."""
    table = Table(box=None)
    for column in columns:
        table.add_column(column, no_wrap=column != "alerts")
    return table


def _summary(alerted: Iterable[Window]) -> str:
    kinds = [one.kind for window in alerted for one in window.alerts]
    found = [(kind, kinds.count(kind)) for kind in ALERT_KINDS if kind in kinds]
    return ", ".join(f"{kind.replace('_', ' ')} in {count}" for kind, count in found)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _band(low: float | None, high: float | None) -> str:
    return _UNKNOWN if low is None or high is None else f"{_number(low)} … {_number(high)}"


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4g}"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
