"""`mlspan report`: tables and JSON of what a processor knows, names as they are, times as they were asked for."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from mlspan_processor.cli.report import moment, show_model, show_models
from tests.processor.running import Running, running
from tests.processor.test_cli import run


@pytest.fixture(scope="module")
def processor() -> Iterator[Running]:
    """One processor for all reports."""
    with running() as one:
        yield one


def test_report_as_json(processor: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the answer, with the window that was asked for."""
    arguments = ["--model", "fraud-model", "--model-version", "7", "--since", "1700000000", "--json"]
    code, out, _ = run(capsys, "report", "--endpoint", processor.http, *arguments)
    assert code == 0
    assert json.loads(out) == {
        "model": "fraud-model",
        "version": "7",
        "start_ns": 1_700_000_000_000_000_000,
        "end_ns": None,
    }


def test_report_of_an_unknown_model(processor: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """The processor's own message is shown."""
    code, _, err = run(capsys, "report", "--endpoint", processor.http, "--model", "other")
    assert code == 1
    assert 'no model "other" has been seen' in err


REPORT: dict[str, Any] = {
    "model": {"name": "fraud-model", "version": "7", "task": "classification", "classes": ["ok", "fraud"]},
    "reference": {"state": "ready", "rows": 5000.0, "source": "file past.parquet", "performance": {"accuracy": 0.95}},
    "drift": {
        "reason": "",
        "rows": 1000.0,
        "start_ns": 1_700_000_000_000_000_000,
        "end_ns": None,
        "features": [
            {
                "name": "amount",
                "type": "numeric",
                "effect": 0.25,
                "p_adjusted": 0.001,
                "missing": 0.5,
                "unseen": 0.0,
                "mean": 12.0,
                "reference_mean": None,
                "psi": 1.23456,
            }
        ],
    },
    "quality": {
        "predicted_rows": 1000.0,
        "labels": 10.0,
        "coverage": 0.01,
        "start_ns": None,
        "end_ns": None,
        "realised": {
            "accuracy": {"value": 0.9, "reason": "", "bound": None},
            "roc_auc": {"value": None, "reason": "one class only", "bound": None},
        },
        "reference": {"accuracy": 0.95},
    },
    "spans": 100,
    "rows": 1000.0,
}


def test_report_tables() -> None:
    """One model's quality and drift are readable tables; what cannot be given has its reason."""
    console = Console(record=True, width=140, file=io.StringIO())
    show_model(REPORT, console)
    text = console.export_text()
    assert "fraud-model 7  classification" in text
    assert "quality over 10 labelled rows (1.0% of 1,000)" in text
    assert "one class only" in text
    assert "2023-11-14 22:13:20Z" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("amount"))
    assert row.split() == ["amount", "numeric", "0.25", "1.235", "0.001", "50.0%", "0.0%", "12", "–"]


def test_report_of_all_models() -> None:
    """The list has a line per model; without any it says so."""
    console = Console(record=True, width=140, file=io.StringIO())
    model = {"name": "m", "version": "1", "task": None, "spans": 5, "rows": 10.0, "last_seen_ns": None}
    show_models({"models": [model | {"reference": {"state": "learning", "rows": 3}}], "labels": {"joined": 4}}, console)
    show_models({"models": []}, console)
    text = console.export_text()
    assert "learning (3 rows)" in text
    assert "labels: 4 joined" in text
    assert "no model has been seen yet" in text


def test_names_of_models_are_never_cut_off() -> None:
    """In a narrow terminal the other columns make way for what the next command needs."""
    console = Console(record=True, width=70, file=io.StringIO())
    model = {
        "name": "fraud-model (eu)",
        "version": "fp-5c1d9a30b2f4",
        "task": "classification",
        "spans": 5,
        "rows": 10.0,
    }
    seen = {"last_seen_ns": 1_700_000_000_000_000_000, "reference": {"state": "learning", "rows": 3}}
    show_models({"models": [model | seen]}, console)
    text = console.export_text()
    assert "fraud-model (eu)" in text
    assert "fp-5c1d9a30b2f4" in text


def test_brackets_in_names_are_no_styles(
    processor: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of models and features are shown as they are, in the list and in detail."""
    feature = REPORT["drift"]["features"][0] | {"name": "income[usd]"}
    answer = REPORT | {"drift": REPORT["drift"] | {"features": [feature]}}
    answer |= {"model": REPORT["model"] | {"name": "fraud [eu]", "version": "[/bold]"}}
    seen = {"spans": 5, "rows": 10.0, "last_seen_ns": None, "reference": {"state": "learning", "rows": 3}}
    monkeypatch.setattr(processor.connector, "report", lambda *_: answer)
    monkeypatch.setattr(processor.connector, "status", lambda: {"models": [answer["model"] | seen]})
    for arguments in ([], ["--model", "fraud [eu]"]):
        code, out, _ = run(capsys, "report", "--endpoint", processor.http, *arguments)
        assert code == 0
        assert "fraud [eu]" in out
        assert "[/bold]" in out
        assert "income[usd]" in out or not arguments


@pytest.mark.parametrize("option", ["--since", "--until", "--model-version"])
def test_report_options_of_one_model_need_one(
    processor: Running, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """What would be passed over in silence is refused."""
    code, _, err = run(capsys, "report", "--endpoint", processor.http, option, "1")
    assert code == 1
    assert err == f"mlspan: {option} needs --model; without it every model is listed as a whole\n"


def test_open_windows_are_told_as_such() -> None:
    """A report since a time has no end in the year 2262."""
    console = Console(record=True, width=140, file=io.StringIO())
    quality = REPORT["quality"] | {"start_ns": 1_700_000_000_000_000_000, "end_ns": None}
    show_model(REPORT | {"quality": quality}, console)
    assert "since 2023-11-14 22:13:20Z\n" in console.export_text()


def test_moments() -> None:
    """A duration is that long ago; everything else goes as it is."""
    assert moment("1h30m", lambda: 10_000.0) == "4600.000"
    assert moment("2026-11-22T08:00:00Z") == "2026-11-22T08:00:00Z"
    assert moment(None) is None


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "a/b", "a?b&c=d#e", "mit Lücke", "%2e%2e"])
def test_a_model_may_have_any_name(
    processor: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Names that no path can hold have a report too; an empty version is a version."""
    monkeypatch.setattr(processor.connector, "report", lambda *asked: asked)
    arguments = ["--model", name, "--model-version", "", "--json"]
    code, out, _ = run(capsys, "report", "--endpoint", processor.http, *arguments)
    assert (code, json.loads(out)) == (0, [name, "", None, None])


def test_a_name_that_is_empty_can_be_seen_in_the_list() -> None:
    """As it would be typed: it must not look like a missing one."""
    buffer = io.StringIO()
    reference = {"state": "ready", "rows": 5.0}
    one = {"name": "", "version": "", "task": None, "spans": 1, "rows": 1.0, "reference": reference}
    show_models({"models": [one]}, Console(file=buffer, width=100, markup=False))
    assert '""' in buffer.getvalue()
