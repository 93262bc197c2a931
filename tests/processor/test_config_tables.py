"""The generated documentation is current."""

from pathlib import Path
from typing import Any

from mlspan_processor.config.components import BUILT_IN
from mlspan_processor.config.schema import Queued, Service
from mlspan_processor.config.tables import configuration_document, metrics_table, rows

DOCS = Path(__file__).parents[2] / "docs"


def test_configuration_page_is_current() -> None:
    """docs/configuration.md is what the models say; its second line tells how to write it anew."""
    assert (DOCS / "configuration.md").read_text("utf-8") == configuration_document()


def test_metrics_table_is_current() -> None:
    """docs/operations.md holds the table of own metrics as the code has it."""
    assert metrics_table() in (DOCS / "operations.md").read_text("utf-8")


def test_every_key_is_described() -> None:
    """Each key of ours has a meaning."""
    models: list[Any] = [Queued, Service, *(one.config for one in BUILT_IN.values())]
    assert [row.key for model in models for row in rows(model) if not row.meaning] == []
