"""The demo's last page: performance by month, drifted features, and where to look next."""

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from examples.flights import data
from mlspan_processor.cli.report import show_incidents

if TYPE_CHECKING:
    from examples.flights.run import Addresses, Options

MONTHS: Final = (
    "",
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
METRICS: Final = {
    "accuracy": "accuracy",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
}
SIGNIFICANT: Final = 0.01
MODERATE_PSI: Final = 0.1
LARGE_PSI: Final = 0.25
"""The thresholds that credit scoring has used for decades; above the second a model is usually rebuilt."""
SHOWN_FEATURES: Final = 4


def result(
    console: Console,
    reports: list[dict[str, Any]],
    incidents: dict[str, Any],
    to: "Addresses",
    options: "Options",
) -> None:
    """Print the tables, the incidents and the pointers."""
    console.print()
    console.print(_performance(reports))
    console.print(_drift(reports))
    console.print("\n[bold]incidents that the processor's own monitors told of[/bold]")
    show_incidents(incidents, console)
    _next(console, reports, to, options)


def drifted(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Features whose shift is significant (Benjamini-Hochberg adjusted) and more than moderate, largest first."""
    found = [
        row
        for row in report["drift"]["features"]
        if row["psi"] is not None and row["psi"] > MODERATE_PSI and (row["p_adjusted"] or 0.0) < SIGNIFICANT
    ]
    return sorted(found, key=lambda row: -float(row["psi"]))


def _performance(reports: list[dict[str, Any]]) -> Table:
    table = Table(title=f"{data.MODEL_NAME} {data.MODEL_VERSION}: realised performance by month, labels a day late")
    table.add_column("month")
    for name in ("flights", "labelled", "late", *METRICS.values()):
        table.add_column(name, justify="right")
    promised = reports[0]["reference"]["performance"]
    accuracy = promised.get("accuracy")
    table.add_row("reference", "", "", "", *(_number(promised.get(name)) for name in METRICS), style="dim")
    for report in reports:
        quality = report["quality"]
        figures = {name: quality["realised"].get(name, {}).get("value") for name in METRICS}
        low = quality["accuracy_interval"]
        worse = accuracy is not None and low is not None and low[1] < accuracy
        cells = [_number(figures[name]) for name in METRICS]
        if worse:
            cells[0] = f"[red]{cells[0]}[/red]"
        coverage = quality["coverage"]
        table.add_row(
            MONTHS[report["month"]],
            f"{quality['predicted_rows']:,.0f}",
            "-" if coverage is None else f"{coverage:.1%}",
            f"{report['late']:.1%}",
            *cells,
        )
    table.caption = (
        "reference: cross-validated on January to March. Red: the whole 95 % interval lies below it. "
        "Precision, recall and F1 are of late flights. Flights that never arrived have no label."
    )
    return table


def _drift(reports: list[dict[str, Any]]) -> Table:
    table = Table(title="drifted features by month, and what the model answered")
    table.add_column("month")
    table.add_column("drifted")
    table.add_column("population stability index, largest first; mean now against the reference")
    for report in reports:
        rows = drifted(report)
        inputs = [row for row in rows if row["kind"] == "input"]
        total = sum(row["kind"] == "input" for row in report["drift"]["features"])
        shown = ", ".join(_row(row) for row in inputs[:SHOWN_FEATURES])
        more = f", and {len(inputs) - SHOWN_FEATURES} more" if len(inputs) > SHOWN_FEATURES else ""
        answers = [f"answers: {_row(row)}" for row in rows if row["kind"] != "input"]
        table.add_row(
            MONTHS[report["month"]], f"{len(inputs)} of {total}", "; ".join([shown + more, *answers]) or "none"
        )
    table.caption = (
        f"drifted: PSI above {MODERATE_PSI:g} and p below {SIGNIFICANT:g} after correction over all features"
    )
    return table


def _row(row: dict[str, Any]) -> str:
    style = "red" if row["psi"] > LARGE_PSI else "yellow"
    means = ""
    if row["mean"] is not None and row["reference_mean"] is not None:
        means = f" ({row['mean']:,.4g} against {row['reference_mean']:,.4g})"
    return f"[{style}]{row['name']} {row['psi']:.2f}[/{style}]{means}"


def _next(console: Console, reports: list[dict[str, Any]], to: "Addresses", options: "Options") -> None:
    worst = min(reports, key=lambda report: report["quality"]["realised"].get("roc_auc", {}).get("value") or 1.0)
    lines = [
        f"{MONTHS[worst['month']]} ranks flights worst. Drift says what changed, not whether it hurts:",
        "compare the months whose features moved most with the months whose performance fell.",
    ]
    if to.jaeger is not None:
        lines.append(
            f"Traces of service flights in Jaeger ({to.jaeger}):"
            f" request -> weather call -> predict_proba {data.MODEL_NAME};"
        )
        lines.append("search for the tag ml.anomaly.flag=true to see the most unusual calls.")
    else:
        lines.append("To see the traces: make servers in another terminal, then make demo ARGS='--jaeger --keep'.")
    if to.zipkin is not None:
        lines.append(f"The same traces in Zipkin: {to.zipkin}/zipkin/?serviceName=flights")
    if options.prometheus is not None:
        lines.append(f"Drift and quality over time: {options.prometheus}/graph?g0.expr=ml_drift_psi_ratio&g0.tab=0")
    if options.keep:
        lines.append(
            f"Metrics are served on http://{to.metrics}/metrics; mlspan report --endpoint http://{to.http} asks again."
        )
    console.print("\n[bold]where to look next[/bold]")
    for line in lines:
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
