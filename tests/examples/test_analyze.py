"""The example of batch analysis, on real flights, as its own docstring runs it."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own

from mlspan_processor.analysis import schema

ROOT = Path(__file__).resolve().parents[2]


def test_flights_are_judged(tmp_path: Path) -> None:
    """March against February: windows in event time, realised and estimated side by side, JSON by the schema."""
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "examples.analyze", str(out), "--months", "3"]
    ran = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert (ran.returncode, ran.stderr) == (0, "")
    *windows, summary = ran.stdout.splitlines()
    document = json.loads(out.read_text())
    jsonschema.validate(document, schema())
    assert document["task"] == "binary"
    assert document["classes"] == ["in time", "late"]
    assert [line.partition(": ")[0] for line in windows] == [window["start"] for window in document["windows"]]
    assert sum(window["rows"] for window in document["windows"]) == 28_834  # every flight of March
    alerted = sum(bool(window["alerts"]) for window in document["windows"])
    assert summary.startswith(f"{alerted} of {len(windows)} windows raised an alert")
    for window in document["windows"]:
        accuracy = window["metrics"]["accuracy"]
        assert 0.6 < accuracy["realised"] < 0.95
        assert accuracy["low"] <= accuracy["estimated"] <= accuracy["high"]
        assert set(window["segments"]["origin"]) == {"EWR", "JFK", "LGA"}
        assert list(window["drift"]["features"]) == ["distance", "hour", "carrier", "origin"]
