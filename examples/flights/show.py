"""The demo's last page: performance by month, drifted features, and where to look next."""

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from examples.flights import data

if TYPE_CHECKING:
    from examples.flights.run import Addresses, Options

MONTHS: Final = (
    "",
    *[
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
)
METRICS: Final = {
    "accuracy": "accuracy",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "precision": "precision",
    "recall": "recall",
}
DRIFTED_PSI: Final = 0.2
SHOWN_FEATURES: Final = 3


def result(console: Console, reports: list[dict[str, Any]], to: "Addresses", options: "Options") -> None:
    """Print the tables and the pointers."""
    console.print()
    console.print(_performance(reports))
    console.print(_drift(reports))
    _next(console, reports, to, options)


def _performance(reports: list[dict[str, Any]]) -> Table:
    table = Table(
        title=f"{data.MODEL_NAME} {data.MODEL_VERSION}: realised performance by month",
        caption="late is the last class: precision and recall are of late flights",
    )
    table.add_column("month")
    for name in ("flights", "labelled", "late"):
        table.add_column(name, justify="right")
    for title in METRICS.values():
        table.add_column(title, justify="right")
    reference = reports[0]["quality"]["metrics"]
    table.add_row(
        "reference", *[""] * 3, *(_number(reference.get(name, {}).get("reference")) for name in METRICS), style="dim"
    )
    for report in reports:
        quality = report["quality"]
        table.add_row(
            MONTHS[report["month"]],
            f"{report['rows']:,.0f}",
            f"{quality['coverage']:.1%}" if quality["coverage"] is not None else "-",
            "",
            *(_number(quality["metrics"].get(name, {}).get("realised")) for name in METRICS),
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
