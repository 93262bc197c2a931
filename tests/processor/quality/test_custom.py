"""The user's own metrics: found by entry point, guarded, bounded in a stream."""

from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from mlspan_processor.quality import custom
from mlspan_processor.quality.custom import CustomMetrics, Rows
from mlspan_processor.quality.realised import labelled
from mlspan_processor.store.codec import fields_of, fill, pack, unpack
from tests.processor.quality.batches import cut
from tests.processor.quality.samples import binary, multilabel


def profit(labels: Any, predictions: Any, scores: Any, weights: Any) -> float:
    """Ten for a hit, one lost for a false alarm; changes what it was given."""
    gain = float(weights @ (10 * labels * predictions - (1 - labels) * predictions)) / float(weights.sum())
    labels[:] = np.nan
    return gain


def broken(labels: Any, predictions: Any, scores: Any, weights: Any) -> float:
    """Fails."""
    raise KeyError("price")


def text(*_: Any) -> Any:
    """Returns what is no number."""
    return "much"


def test_figures_with_bands() -> None:
    """Value, band by bootstrap and rows; the function cannot change the rows."""
    sample = binary(np.random.default_rng(0), 500, weighted=True)
    metrics = CustomMetrics({"profit": profit})
    first, second = metrics.of_sample(sample)["profit"], metrics.of_sample(sample)["profit"]
    y, said, w = sample.labels, sample.predictions, sample.weights
    expected = np.average(10 * y * said - (1 - y) * said, weights=w)
    assert first.value == second.value == pytest.approx(expected)
    assert first.low is not None
    assert first.high is not None
    assert first.low < expected < first.high
    assert first.labels == 500


def test_failures_are_named_and_counted() -> None:
    """An exception, NaN and text are reasons; the other metrics go on."""
    sample = binary(np.random.default_rng(0), 50)
    metrics = CustomMetrics(
        {
            "broken": broken,
            "nan": lambda *_: float("nan"),
            "text": text,
            "profit": profit,
        }
    )
    for _ in range(2):
        found = metrics.of_sample(sample)
    assert found["broken"].reason == "undecidable, because \"broken\" raised KeyError: 'price'"
    assert found["nan"].reason == 'undecidable, because "nan" returned nan'
    assert found["text"].reason.startswith('undecidable, because "text" raised ValueError')
    assert found["profit"].value is not None
    assert metrics.failures == {"broken": 2, "nan": 2, "text": 2}
    assert metrics.of_sample(sample.take(slice(0, 0)))["profit"].reason == "no labelled predictions"


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed functions are found; what cannot be loaded has a reason."""
    here = __name__
    points = [
        EntryPoint("profit", f"{here}:profit", custom.GROUP),
        EntryPoint("gone", f"{here}:gone", custom.GROUP),
        EntryPoint("number", f"{here}:np.pi", custom.GROUP),
    ]
    monkeypatch.setattr(custom, "entry_points", lambda group: points if group == "mlspan_metric" else [])
    metrics = CustomMetrics.installed()
    found = metrics.of_sample(binary(np.random.default_rng(0), 50))
    assert found["profit"].value is not None
    assert found["gone"].reason.startswith("undecidable, because it cannot be loaded: AttributeError")
    assert "is no function" in found["number"].reason


def test_rows_are_bounded_and_merge() -> None:
    """A uniform sample of at most so many rows; parts that merge hold the rows of one pass; weights make up."""
    sample = labelled(binary(np.random.default_rng(0), 6000, share=0.5))
    parts = [Rows(seed, most=1000) for seed in range(100, 106)]
    for i, part in enumerate(parts):
        part.update(cut(sample, i * 1000, (i + 1) * 1000))
    merged = Rows(most=1000)
    for part in parts:
        merged.merge(part)
    batch = merged.batch()
    assert batch is not None
    assert len(merged) == 1000
    assert merged.nbytes < 1000 * 48
    assert batch.weights.sum() == pytest.approx(6000)
    assert batch.labels.mean() == pytest.approx(0.5, abs=0.06)
    fresh = Rows()
    fill(fresh, unpack(pack(fields_of(merged))))
    again = fresh.batch()
    assert again is not None
    np.testing.assert_array_equal(again.labels, batch.labels)
    assert Rows().batch() is None


def test_multilabel_rows() -> None:
    """Rows of several outputs are kept alike."""
    rows = Rows(most=100)
    rows.update(labelled(multilabel(np.random.default_rng(0), 500)))
    batch = rows.batch()
    assert batch is not None
    assert batch.labels.shape == (100, 3)
