"""Every example runs as its own docstring says."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def _run(script: str, *arguments: str, **environment: str) -> str:
    env = {**os.environ, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", **environment}
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [str(instrument), sys.executable, str(ROOT / "examples" / script), *arguments]
    ran = subprocess.run(command, check=False, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def _spans(printed: str) -> list[dict[str, Any]]:
    """The spans that the console exporter printed between other lines."""
    decoder, found = json.JSONDecoder(), []
    while (at := printed.find("{\n")) >= 0:
        span, end = decoder.raw_decode(printed[at:])
        found.append(span)
        printed = printed[at + end :]
    return found


def test_quickstart_prints_predictions_and_feedback() -> None:
    """Three named predictions and their three truths are spans; the fit is one too."""
    spans = _spans(_run("quickstart.py", OTEL_TRACES_EXPORTER="console"))
    predicted = [span for span in spans if span["name"] == "predict tumour"]
    told = [span for span in spans if span["name"] == "feedback tumour"]
    assert len(predicted) == len(told) == 3
    assert [span["attributes"]["ml.prediction.id"] for span in predicted] == [
        span["attributes"]["ml.prediction.id"] for span in told
    ]
    assert {span["attributes"]["ml.prediction.class"] for span in predicted} <= {"malignant", "benign"}
    assert {span["attributes"]["ml.feedback.label"] for span in told} <= {"malignant", "benign"}
    assert any(span["name"].startswith("fit ") for span in spans)


def test_pipeline_steps_are_below_the_prediction() -> None:
    """One prediction, and below it the steps and transformers under their names; the fit has none."""
    spans = _spans(_run("pipeline_steps.py", OTEL_TRACES_EXPORTER="console"))
    steps = {span["attributes"]["ml.step.path"]: span for span in spans if "ml.step.path" in span["attributes"]}
    (root,) = [span for span in spans if span["name"] == "predict wine"]
    assert set(steps) >= {"prepare", "prepare.chemistry", "prepare.colours", "forest"}
    assert steps["prepare"]["parent_id"] == steps["forest"]["parent_id"] == root["context"]["span_id"]
    assert steps["prepare.colours"]["parent_id"] == steps["prepare"]["context"]["span_id"]


def test_batch_writes_an_id_for_every_prediction(tmp_path: Path) -> None:
    """Each scored row has an id of its own, made of its call's trace and span."""
    out = tmp_path / "scored.csv"
    spans = _spans(_run("batch.py", str(out), OTEL_TRACES_EXPORTER="console"))
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["prediction_id"] for row in rows}) == 221
    calls = {
        f"{span['context']['trace_id'][2:]}-{span['context']['span_id'][2:]}": span["attributes"]["ml.input.rows"]
        for span in spans
        if span["name"] == "predict progression"
    }
    assert sum(calls.values()) == 221
    assert {row["prediction_id"].rpartition("-")[0] for row in rows} == set(calls)
