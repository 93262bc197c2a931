"""The example of a service runs as its docstring says."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def _spans(printed: str) -> list[dict[str, Any]]:
    """The spans that the console exporter printed between other lines."""
    decoder, found = json.JSONDecoder(), []
    while (at := printed.find("{\n")) >= 0:
        span, end = decoder.raw_decode(printed[at:])
        found.append(span)
        printed = printed[at + end :]
    return found


def test_torch_service() -> None:
    """Three requests: a span of the model below each request's own, and none for the training."""
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    options = ["--traces_exporter", "console", "--metrics_exporter", "none", "--logs_exporter", "none"]
    command = [str(instrument), *options, sys.executable, "examples/torch_service.py", "--requests", "3"]
    ran = subprocess.run(
        command, check=False, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=240
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    spans = _spans(ran.stdout)
    requests = [span for span in spans if span["name"] == "POST /predict"]
    predictions = [span for span in spans if span["name"] == "predict machine-state"]
    assert len(requests) == len(predictions) == 3
    assert {span["parent_id"] for span in predictions} == {span["context"]["span_id"] for span in requests}
    assert {span["attributes"]["ml.prediction.class"] for span in predictions} <= {"fine", "worn", "broken"}
    assert all(0 < span["attributes"]["ml.prediction.score"] <= 1 for span in predictions)
    assert len(spans) == 6
