"""What every kind of quality must do; finds the kinds in the table by itself."""

import importlib
import pickle
from typing import Any

import numpy as np
import pytest

from mlspan_processor.quality import KINDS, Labelled
from mlspan_processor.quality.bands import bands
from mlspan_processor.store.codec import fields_of, fill, pack, unpack
from tests.processor.quality.batches import classified, cut, labelled_thrice, regressed

EACH = pytest.mark.parametrize("kind", KINDS)


def batch_of(kind: str, n: int = 500, seed: int = 0) -> Labelled:
    """Rows of a kind."""
    if kind == "regression":
        return regressed(n, seed, weighted=True)
    return labelled_thrice(n, seed) if kind == "multilabel" else classified(n, 3, seed, weighted=True)


def fed(kind: str, *batches: Labelled) -> Any:
    """Statistics of these batches."""
    quality = KINDS[kind](3)
    for batch in batches:
        quality.update(batch)
    return quality


def close(one: Any, other: Any) -> None:
    """Assert equal figures."""
    for name, figure in one.figures().items():
        again = other.figures()[name]
        assert figure.reason == again.reason
        if figure.value is not None:
            assert again.value == pytest.approx(figure.value, rel=1e-9)


@EACH
def test_docstring_names_a_source(kind: str) -> None:
    """The module says what is exact, what is not, how much memory it takes and where it comes from."""
    text = importlib.import_module(type(KINDS[kind](2)).__module__).__doc__ or ""
    assert text.startswith("Stage 5")
    assert "scikit-learn" in text
    assert "Memory:" in text


@EACH
def test_repr_and_pickle(kind: str) -> None:
    """Statistics print as their constructor and pickle."""
    quality = fed(kind, batch_of(kind))
    assert type(quality).__name__ in repr(quality)
    close(quality, pickle.loads(pickle.dumps(quality)))


@EACH
def test_merged_parts_give_the_same_as_one_pass(kind: str) -> None:
    """In any portions and order, empty ones included."""
    batch = batch_of(kind)
    parts = [fed(kind, cut(batch, i, i + 71)) for i in range(0, 500, 71)]
    merged = KINDS[kind](3)
    merged.merge(KINDS[kind](3))
    for part in reversed(parts):
        merged.merge(part)
    close(fed(kind, batch), merged)
    assert merged.rows == 500
    assert merged.labelled == pytest.approx(batch.weights.sum())


@EACH
def test_empty_has_reasons_and_no_figures(kind: str) -> None:
    """Without rows every figure is None and says why."""
    for figure in KINDS[kind](3).figures().values():
        assert figure.value is None
        assert figure.reason
    assert KINDS[kind](3).coverage is None


@EACH
def test_rows_of_nan_change_nothing(kind: str) -> None:
    """Rows without a label, or with neither prediction nor score, are left out."""
    batch = batch_of(kind)
    nothing = np.full_like(batch.labels, np.nan)
    quality = fed(kind, batch)
    before = quality.figures()
    quality.update(batch._replace(labels=nothing))
    quality.update(batch._replace(predictions=nothing, scores=None))
    assert quality.figures() == before
    assert quality.rows == 500


@EACH
def test_every_figure_has_a_band_around_it(kind: str) -> None:
    """One band for each figure with a value, in parts as in one pass; none without rows."""
    batch = batch_of(kind)
    quality, merged = fed(kind, batch), fed(kind, cut(batch, 0, 200))
    merged.merge(fed(kind, cut(batch, 200, 500)))
    again = bands(merged)
    assert set(again) == set(quality.figures())
    for name, band in bands(quality).items():
        value = quality.figures()[name].value
        assert band is not None
        assert band[0] <= value <= band[1]
        assert again[name] == pytest.approx(band)
    assert bands(KINDS[kind](3)) == {}


@EACH
def test_state_survives(kind: str) -> None:
    """Written to bytes and read again it is the same."""
    quality, fresh = fed(kind, batch_of(kind)), KINDS[kind](3)
    fill(fresh, unpack(pack(fields_of(quality))))
    close(quality, fresh)
    assert bands(fresh) == bands(quality)


@EACH
def test_memory_is_bounded(kind: str) -> None:
    """After many rows the statistics take no more than the docstring says."""
    quality = fed(kind, *(batch_of(kind, 20_000, seed) for seed in range(5)))
    assert quality.nbytes <= 1_100_000
    filled = quality.nbytes
    quality.update(batch_of(kind, 20_000, 0))
    assert quality.nbytes == filled
