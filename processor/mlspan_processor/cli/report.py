"""``mlspan report``: what a running processor knows of its models, as tables or JSON."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
from rich.console import Console
from rich.table import Table

from mlspan_processor.cli.client import Client, ClientError
from mlspan_processor.cli.console import fail
from mlspan_processor.config.durations import parse_duration

_MAX_FEATURES = 20
_UNKNOWN = "–"


def report(options: argparse.Namespace) -> int:
    """Show all models, or one in detail."""
    try:
        client = Client(options.endpoint)
        if options.model:
            parameters = {
                key: value
                for key, value in (
                    ("version", options.model_version),
                    ("start", moment(options.since)),
                    ("end", moment(options.until)),
                )
                if value
            }
            answer = client.get(f"/v1/models/{quote(options.model, safe='')}", parameters)
        else:
            answer = client.get("/v1/models")
    except ClientError as error:
        return fail(str(error))
    if options.json:
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
        return 0
    console = Console()
    show: Callable[[Mapping[str, Any], Console], None] = show_model if options.model else show_models
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
    table = Table("model", "version", "task", "spans", "rows", "reference", "last seen", box=None)
    for one in models:
        reference = one["reference"]
        table.add_row(
            one["name"],
            one["version"],
            one.get("task") or _UNKNOWN,
            f"{one['spans']:,}",
            f"{one['rows']:,.0f}",
            f"{reference['state']} ({reference['rows']:,.0f} rows)",
            _time(one.get("last_seen_ns")),
        )
    console.print(table)
    labels = answer.get("labels", {})
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in labels.items() if value)
    console.print(f"labels: {counts or 'none'}")


def show_model(answer: Mapping[str, Any], console: Console) -> None:
    """Write one model's quality and drift."""
    model, quality, drift = answer["model"], answer["quality"], answer["drift"]
    console.print(f"[bold]{model['name']}[/bold] {model['version']}  {model.get('task') or ''}", highlight=False)
    reference = answer["reference"]
    console.print(
        f"{answer['spans']:,} spans, {answer['rows']:,.0f} rows; reference {reference['state']}"
        f" ({reference['rows']:,.0f} rows, {reference['source'] or 'being learnt'})\n",
        highlight=False,
    )
    console.print(
        f"quality over {quality['labels']:,.0f} labelled rows ({_ratio(quality['coverage'])} of"
        f" {quality['predicted_rows']:,.0f}), {_range(quality)}",
        highlight=False,
    )
    figures = Table("figure", "value", "reference", "", box=None)
    for name, figure in quality["realised"].items():
        figures.add_row(name, _number(figure["value"]), _number(quality["reference"].get(name)), figure["reason"] or "")
    console.print(figures)
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


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4g}"


def _ratio(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1%}"


def _time(nanoseconds: int | None) -> str:
    if not nanoseconds:
        return _UNKNOWN
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(" ", "seconds").replace("+00:00", "Z")


def _range(window: Mapping[str, Any]) -> str:
    return f"{_time(window.get('start_ns'))} to {_time(window.get('end_ns'))}"
