"""The generated documentation is current."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from mlspan_processor.config.components import BUILT_IN
from mlspan_processor.config.schema import Queued, Service
from mlspan_processor.config.tables import configuration_document, metrics_table, rows

DOCS = Path(__file__).parents[2] / "docs"


def test_configuration_page_is_current() -> None:
    """docs/configuration.md is what the models say; its third line tells how to write it anew."""
    assert (DOCS / "configuration.md").read_text("utf-8") == configuration_document()


def test_metrics_table_is_current() -> None:
    """docs/operations.md holds the table of own metrics as the code has it."""
    assert metrics_table() in (DOCS / "operations.md").read_text("utf-8")


@pytest.mark.parametrize("page", ["configuration.md", "operations.md"])
def test_the_check_of_documentation_finds_what_is_stale(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`docs/generate.py --check`, as `make check` runs it, names a page that is not what the code says."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = tmp_path / "docs" / page
    stale.parent.mkdir()
    current = (DOCS / page).read_text("utf-8")
    stale.write_text(current.replace("| integer |", "| number |").replace("| gauge |", "| counter |"), "utf-8")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {stale: generate.PAGES[DOCS / page]})
    assert generate.main(["--check"]) == 1
    assert f"docs/{page} is out of date" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert stale.read_text("utf-8") == current


def test_every_key_is_described() -> None:
    """Each key of ours has a meaning."""
    models: list[Any] = [Queued, Service, *(one.config for one in BUILT_IN.values())]
    assert [row.key for model in models for row in rows(model) if not row.meaning] == []
