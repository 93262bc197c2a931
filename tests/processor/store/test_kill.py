"""``kill -9`` at any moment, under load: no acknowledged label is lost or counts twice."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3

from mlspan_processor.model_spans import ModelSpans, feedback_logs, feedback_spans
from tests.processor.store.kept import calls_of
from tests.processor.store.served import Served

KILLS = 3


class Load(threading.Thread):
    """Predictions, and labels for some of them in three ways, until the processor is gone."""

    def __init__(self, processor: Served, seed: int) -> None:
        super().__init__()
        self._processor = processor
        self._rng = np.random.default_rng(seed)
        self._spans = ModelSpans(seed=seed)
        self.acknowledged: list[tuple[str, str]] = []
        self.requests = 0

    def run(self) -> None:
        """Send until that fails."""
        try:
            while True:
                self._spans.next_end = time.time_ns()
                chunk, ids = calls_of(self._spans, 20, int(self._rng.integers(1 << 30)))
                self._processor.send(chunk)
                for start in range(0, 12, 3):
                    pairs = [(text, ("no", "yes")[int(self._rng.integers(2))]) for text in ids[start : start + 3]]
                    match self._rng.integers(3):
                        case 0:
                            assert self._processor.label(pairs)["durable"]
                        case 1:
                            self._processor.send(feedback_logs(pairs))
                        case _:
                            self._processor.send(feedback_spans(pairs))
                    self.acknowledged += pairs
                    self.requests += 1
        except urllib3.exceptions.HTTPError:
            return


def counted(processor: Served) -> dict[str, Any]:
    """Counts of labels by state."""
    counts: dict[str, Any] = processor.get("/v1/models")["labels"]
    return counts


def test_no_acknowledged_label_is_lost(tmp_path: Path) -> None:
    """After each kill every label that was ever acknowledged is there, once: sent again, all are known already."""
    store = {"path": str(tmp_path / "state.db"), "snapshot_interval": "150ms"}
    processor = Served(tmp_path, store=store, reference={"learn_rows": 100}, metrics_flush_interval="100ms")
    rng = np.random.default_rng(0)
    acknowledged: list[tuple[str, str]] = []
    for kill in range(KILLS):
        with processor:
            if acknowledged:
                before = counted(processor)
                answer = processor.label(acknowledged)
                after = counted(processor)
                assert answer["rejected_count"] == 0
                assert {state: after[state] - before[state] for state in before if after[state] != before[state]} == {
                    "duplicate": len(acknowledged)
                }
                # A prediction that came after the last save is not known: its label waits, as all do before the first.
                is_known = bool(processor.get("/v1/models")["models"])
                labels = processor.get("/v1/models/fraud")["quality"]["labels"] if is_known else 0
                assert labels <= len(acknowledged) <= labels + after["waiting_now"]
            load = Load(processor, kill)
            load.start()
            enough = int(rng.integers(5, 60))
            while load.requests < enough and load.is_alive():
                time.sleep(0.001)
            time.sleep(rng.random() * 0.02)
            assert processor.stop(signal.SIGKILL) == -signal.SIGKILL
            load.join()
            acknowledged += load.acknowledged
    with processor:
        assert processor.label(acknowledged)["waiting"] == 0
        # Rows for a reference, and some after it, whatever the kills have left.
        spans = ModelSpans(seed=KILLS)
        for _ in range(2):
            spans.next_end = time.time_ns()
            processor.send(calls_of(spans, 100, KILLS)[0])
            assert processor.get("/v1/models/fraud")["rows"]
        before = {key: processor.get("/v1/models/fraud")[key] for key in ("drift", "quality", "spans", "rows")}
        assert before["drift"]["rows"] > 0
        assert processor.stop(signal.SIGTERM) == 0
    with processor:
        assert {key: processor.get("/v1/models/fraud")[key] for key in before} == before
        assert "state of 1 model versions" in processor.output.read_text()


def test_a_second_processor_on_the_same_file(tmp_path: Path) -> None:
    """It does not start, and says why; the first one is not disturbed."""
    store = {"path": str(tmp_path / "state.db")}
    with Served(tmp_path, store=store) as first:
        with (
            pytest.raises(AssertionError, match="another processor uses the state file") as caught,
            Served(tmp_path, store=store),
        ):
            pass
        assert 'connector "mlspan"' in str(caught.value)
        assert first.get("/v1/models")["store"] == {"path": store["path"], "problems": []}


def test_the_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path `mlspan run` keeps its state in the user's folder for such things."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    with Served(tmp_path) as processor:
        assert processor.get("/v1/models")["store"]["path"] == str(tmp_path / "states" / "mlspan" / "mlspan.db")
    assert (tmp_path / "states" / "mlspan" / "mlspan.db").exists()
