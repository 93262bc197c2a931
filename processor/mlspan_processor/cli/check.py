"""``mlspan check``: arguments to `mlspan_processor.analysis.gate`, its result to a table, JSON and an exit status."""

import argparse

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlspan_processor.analysis.gate import Gate, compare_versions
from mlspan_processor.cli.analysis_table import console_of
from mlspan_processor.cli.analyze import writable, write
from mlspan_processor.cli.console import fail

_UNKNOWN = "–"


def check(options: argparse.Namespace) -> int:
    """Compare, tell, and say by the exit status whether the challenger may pass."""
    try:
        writable(options.json)
        gate = compare_versions(
            champion=options.champion,
            challenger=options.challenger,
            data=options.data,
            version=options.version,
            task=options.task,
            prediction=options.prediction,
            probability=options.probability,
            label=options.label,
            id=options.id,
            metric=options.metric,
            margin=options.margin,
        )
        if options.json:
            write(options.json, gate.to_json() + "\n")
    except (OSError, ValueError) as error:
        fail(str(error))
        return 2
    if not options.quiet and options.json != "-":
        show(gate, console_of())
    return 0 if gate.outcome == "pass" or (gate.outcome == "undecided" and options.undecided == "pass") else 1


def show(gate: Gate, console: Console) -> None:
    """One sentence, then a row for each metric."""
    console.print(f"[bold]{gate.outcome}[/bold]: {escape(gate.why)}", highlight=False, soft_wrap=True)
    how = "case by case" if gate.paired else "as separate rows"
    console.print(
        f"{gate.task} model; {gate.labels[0]:,} and {gate.labels[1]:,} labelled rows, compared {how}", highlight=False
    )
    for note in gate.notes:
        console.print(escape(f"note: {note}"), highlight=False, soft_wrap=True)
    table = Table("metric", "champion", "challenger", "difference", "95 % interval", "outcome", "", box=None)
    for name, one in gate.metrics.items():
        band = _UNKNOWN if one.low is None or one.high is None else f"{one.low:+.4f} … {one.high:+.4f}"
        table.add_row(
            f"{name} *" if one.decides else name,
            _number(one.champion),
            _number(one.challenger),
            _UNKNOWN if one.difference is None else f"{one.difference:+.4f}",
            band,
            one.outcome,
            "" if one.difference is not None else escape(one.reason),
        )
    console.print()
    console.print(table)
    console.print("* decides", highlight=False)


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4f}"
