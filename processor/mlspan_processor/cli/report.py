"""``mlspan report``: what a running processor knows of its models, as tables or JSON."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.console import Console
from rich.table import Column, Table

from mlspan_processor.cli.analysis_table import console_of
from mlspan_processor.cli.client import Client, ClientError
from mlspan_processor.cli.console import fail
from mlspan_processor.config.durations import parse_duration

_MAX_FEATURES = 20
_MAX_NAME = 40
"""Characters of a name or version on one line of the list."""
_UNKNOWN = "–"
_MAX_DETAILS = 5
_MAX_WINDOWS = 10
_SHOWN = ("accuracy", "f1", "f1_micro", "hamming_loss", "roc_auc", "mae", "rmse")
"""Figures that are shown window by window."""


def report(options: argparse.Namespace) -> int:
    """Show all models, or one in detail."""
    if options.model is None:
        for option in ("model_version", "since", "until"):
            if getattr(options, option):
                return fail(f"--{option.replace('_', '-')} needs --model; without it every model is listed as a whole")
    try:
        client = Client(options.endpoint)
        parameters = {
            "name": options.model,
            "version": options.model_version,
            "start": moment(options.since),
            "end": moment(options.until),
        }
        answer = client.get("/v1/models", {key: value for key, value in parameters.items() if value is not None})
    except ClientError as error:
        return fail(str(error))
    if options.json:
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
        return 0
    # Names of models and features are the user's: "[eu]" in one is no style.
    console = console_of(markup=False)
    show: Callable[[Mapping[str, Any], Console], None] = show_models if options.model is None else show_model
    show(answer, console)
    return 0


def moment(text: str | None, now: Callable[[], float] = time.time) -> str | None:
    """Return what the processor understands: a duration is that long ago, everything else goes as it is."""
    if not text:
        return None
    try:
        return f"{now() - parse_duration(text):.3f}" if text != "0" else text
    except ValueError:
        return text


def show_models(answer: Mapping[str, Any], console: Console) -> None:
    """Write the list of models."""
    models = answer.get("models", [])
    if not models:
        console.print("no model has been seen yet")
        return
    # Names and versions are what the next command is given: the other columns make way for them.
    names = (
        Column(title, overflow="fold", no_wrap=all(len(one[key]) <= _MAX_NAME for one in models))
        for title, key in (("model", "name"), ("version", "version"))
    )
    table = Table(*names, "task", "spans", "rows", "reference", "last seen", box=None)
    for one in models:
        reference = one["reference"]
        table.add_row(
            one["name"] or '""',
            one["version"] or '""',
            one.get("task") or _UNKNOWN,
            f"{one['spans']:,}",
            f"{one['rows']:,.0f}",
            f"{reference['state']} ({reference['rows']:,.0f} rows)",
            _time(one.get("last_seen_ns")),
        )
    console.print(table)
    show_incidents(answer.get("incidents", {}), console)
    labels = answer.get("labels", {})
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in labels.items() if value)
    console.print(f"labels: {counts or 'none'}")


def show_model(answer: Mapping[str, Any], console: Console) -> None:
    """Write one model's quality and drift."""
    model, quality, drift = answer["model"], answer["quality"], answer["drift"]
    console.print(model["name"], style="bold", end=" ", highlight=False)
    console.print(f"{model['version']}  {model.get('task') or ''}", highlight=False)
    reference = answer["reference"]
    console.print(
        f"{answer['spans']:,} spans, {answer['rows']:,.0f} rows; reference {reference['state']}"
        f" ({reference['rows']:,.0f} rows, {reference['source'] or 'being learnt'})\n",
        highlight=False,
    )
    show_incidents(answer.get("incidents", {}), console)
    console.print(
        f"quality over {quality['labels']:,.0f} labelled rows ({_ratio(quality['coverage'])} of"
        f" {quality['predicted_rows']:,.0f}), {_range(quality)}",
        highlight=False,
    )
    figures = Table("figure", "value", "reference", "", box=None)
    for name, figure in quality["realised"].items():
        figures.add_row(name, _number(figure["value"]), _number(quality["reference"].get(name)), figure["reason"] or "")
    console.print(figures)
    judged = answer.get("judged", {})
    show_performance(judged.get("performance"), console)
    show_versions(answer.get("versions", ()), console)
    show_segments(judged.get("segments", ()), console)
    for name, one in judged.get("fairness", {}).items():
        show_gaps(name, one["figures"], console)
    show_verdicts(judged.get("drift"), console)
    if drift.get("reason"):
        console.print(f"\ndrift: {drift['reason']}", highlight=False)
        return
    console.print(f"\ndrift over {drift['rows']:,.0f} rows, {_range(drift)}", highlight=False)
    features = Table(
        "feature", "type", "effect", "psi", "adjusted p", "missing", "unseen", "mean", "reference mean", box=None
    )
    for row in drift["features"][:_MAX_FEATURES]:
        features.add_row(
            row["name"],
            row["type"],
            _number(row["effect"]),
            _number(row.get("psi")),
            _number(row["p_adjusted"]),
            _ratio(row["missing"]),
            _ratio(row["unseen"]),
            _number(row["mean"]),
            _number(row["reference_mean"]),
        )
    console.print(features)
    if len(drift["features"]) > _MAX_FEATURES:
        console.print(f"… and {len(drift['features']) - _MAX_FEATURES} features with less effect (--json shows all)")


def show_incidents(incidents: Mapping[str, Any], console: Console) -> None:
    """Write open incidents, and how many were closed."""
    opened, closed = incidents.get("open", []), incidents.get("closed", [])
    if not opened and not closed:
        return
    for one in opened:
        model = one["model"]
        console.print(one["severity"], style="bold red", end=" ", highlight=False)
        head = f"{model['name']} {model['version']} since {one['since']}: {one['summary']}"
        console.print(head, markup=False, highlight=False)
        for line in one["details"][:_MAX_DETAILS]:
            console.print(f"  {line}", markup=False, highlight=False)
        traces = dict.fromkeys(exemplar["trace_id"] for exemplar in one["exemplars"])
        if traces:
            console.print(f"  traces: {' '.join(list(traces)[:_MAX_DETAILS])}", highlight=False)
    console.print(f"incidents: {len(opened)} open, {len(closed)} closed lately\n", highlight=False)


def show_performance(performance: Mapping[str, Any] | None, console: Console) -> None:
    """Write estimated beside realised performance, newest window first."""
    if not performance:
        return
    if not performance["windows"]:
        console.print(f"\nestimated performance: {performance['reason']}", markup=False, highlight=False)
        return
    last = performance["windows"][-1]
    kinds = ("estimated", "realised") if last["estimated"] else ("realised",)
    names = [name for name in _SHOWN if name in last[kinds[0]]]
    table = Table("window until", "rows", "labels", box=None)
    for name in names:
        table.add_column(f"{name} {kinds[0]}")
        if len(kinds) > 1:
            table.add_column("realised")
    for window in reversed(performance["windows"][-_MAX_WINDOWS:]):
        cells = [_time(window["end_ns"]), f"{window['rows']:,.0f}", f"{window['labels']:,.0f}"]
        for name in names:
            cells += [_banded(window[kind].get(name)) for kind in kinds]
        table.add_row(*cells)
    console.print(f"\n{' and '.join(kinds)} performance", highlight=False)
    if len(kinds) == 1:
        console.print(f"estimated performance: {performance['reason']}", markup=False, highlight=False)
    console.print(table)


def show_versions(versions: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Write what the version does better or worse than those before it."""
    for one in versions:
        labels = " and ".join(f"{count:,}" for count in one["labels"])
        console.print(
            f"\nagainst version {one['baseline']} over the same time ({labels} labels): {one['verdict']}"
            + (f", {one['reason']}" if one["reason"] else ""),
            markup=False,
            highlight=False,
        )
        table = Table("figure", one["baseline"], "this", "difference", "", box=None)
        for row in one["metrics"]:
            difference = _banded({"value": row["difference"], "low": row["low"], "high": row["high"]})
            table.add_row(row["metric"], _number(row["a"]), _number(row["b"]), difference, row["verdict"])
        console.print(table)


def show_segments(segments: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Write the figures of every segment; those that are worse than the other rows beyond chance are marked."""
    if not segments:
        return
    names = [name for name in _SHOWN if any(name in one["figures"] for one in segments)]
    table = Table("segment", "labels", *names, "worse than the others", box=None)
    for one in segments:
        cells = [_banded(one["figures"].get(name)) for name in names]
        worse = ", ".join(f"{name} {difference:+.3g}" for name, difference in one["worse"].items())
        table.add_row(f"{one['segment']}={one['value']}", f"{one['labels']:,}", *cells, worse or one["reason"])
    console.print("\nsegments of the newest labelled rows", highlight=False)
    console.print(table)


def show_gaps(name: str, gaps: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Write how alike the groups of one attribute are treated."""
    table = Table("gap", "value", "between", "", box=None)
    for gap, one in gaps.items():
        table.add_row(gap, _banded(one), " and ".join(filter(None, one["groups"])), one.get("reason", ""))
    console.print(f"\nfairness by {name}", markup=False, highlight=False)
    console.print(table)


def show_verdicts(drift: Mapping[str, Any] | None, console: Console) -> None:
    """Write which features drifted in the last closed window."""
    if not drift:
        return
    features = drift["features"]
    console.print(
        f"\nlast closed window, {drift['rows']:,.0f} rows, {_range(drift)}: drift in {drift['drifted']} of"
        f" {len(features)} features and answers",
        highlight=False,
    )
    for one in features:
        if one["drifted"]:
            numbers = f"effect {_number(one['effect'])}, adjusted p {_number(one['p_adjusted'])}"
            console.print(f"  {one['message']}; {numbers}", markup=False, highlight=False)
    together = drift.get("multivariate")
    if together and together["message"]:
        numbers = f"effect {_number(together['effect'])}, p {_number(together['p_value'])}"
        console.print(f"  all features together: {together['message']}; {numbers}", markup=False, highlight=False)


def _banded(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return _UNKNOWN
    if figure["low"] is None or figure["high"] is None:
        return _number(figure["value"])
    return f"{_number(figure['value'])} ({_number(figure['low'])} to {_number(figure['high'])})"


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4g}"


def _ratio(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1%}"


def _time(nanoseconds: int | None) -> str:
    if not nanoseconds:
        return _UNKNOWN
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(" ", "seconds").replace("+00:00", "Z")


def _range(window: Mapping[str, Any]) -> str:
    start, end = window.get("start_ns"), window.get("end_ns")
    if start and not end:
        return f"since {_time(start)}"
    if end and not start:
        return f"until {_time(end)}"
    return f"{_time(start)} to {_time(end)}"
