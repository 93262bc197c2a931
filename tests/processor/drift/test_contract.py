"""What every drift method must do; finds the methods in the table by itself."""

import importlib
import pickle
import re

import numpy as np
import pytest

from mlspan_processor.drift import METHODS, DriftMethod, Layout, Table, adjusted, measure
from tests.processor.drift.tables import counts_of, layout_of, rows, table

EACH = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@EACH
def test_docstring_names_a_source(method: DriftMethod) -> None:
    """The module says what the method guarantees, when it says nothing, and where it comes from."""
    text = importlib.import_module(type(method).__module__).__doc__ or ""
    assert text.startswith("Stage 5")
    assert "Source:" in text
    assert "NaN" in text
    assert re.search(r"\b(1[89]|20)\d\d\b", text)


@EACH
def test_repr_pickle_and_name(method: DriftMethod) -> None:
    """A method prints as its constructor, pickles, and its metric is named after it."""
    assert repr(method) == f"{type(method).__name__}()"
    assert type(pickle.loads(pickle.dumps(method))) is type(method)
    assert METHODS[method.name] is method
    assert method.metric.name == f"ml.drift.{method.name}"


@EACH
def test_merged_panes_give_the_same_as_one_pass(method: DriftMethod) -> None:
    """The score of added counts is the score of all rows at once."""
    reference, window = rows(2000, 0), rows(900, 1, 0.3)
    layout = layout_of(reference)
    whole = counts_of(reference, window)
    parts = sum((counts_of(reference, window[i : i + 100]) for i in range(0, 900, 100)), np.zeros(len(whole)))
    assert method.score(Table.of(layout, parts)) == pytest.approx(method.score(Table.of(layout, whole)), nan_ok=True)


@EACH
def test_empty_window_says_nothing(method: DriftMethod) -> None:
    """Without rows every value is NaN, and no warning is given."""
    one = table()
    empty = Table.of(one.layout, np.zeros(one.layout.n_cells))
    assert np.isnan(method.score(empty)).all()


@EACH
def test_window_of_missing_values_only(method: DriftMethod) -> None:
    """A window of nothing but missing values gives finite values or NaN, never infinity."""
    one = table()
    counts = np.zeros(one.layout.n_cells)
    counts[one.layout.missing] = 100
    assert not np.isinf(method.score(Table.of(one.layout, counts))).any()


@EACH
def test_the_reference_itself_does_not_drift(method: DriftMethod) -> None:
    """The same counts on both sides give 0 or NaN, constants included."""
    one = table()
    scores = method.score(Table.of(one.layout, one.reference.copy()))
    assert np.nan_to_num(scores) == pytest.approx(np.zeros(len(scores)), abs=1e-7)


@EACH
def test_larger_shifts_score_higher(method: DriftMethod) -> None:
    """The value grows with the shift, and is not negative."""
    scores = [method.score(table(5000, 5000, shift))[0] for shift in (0.0, 0.3, 1.0)]
    if not np.isnan(scores[0]):
        assert 0 <= scores[0] < scores[1] < scores[2]


@EACH
def test_no_features(method: DriftMethod) -> None:
    """A model without captured columns has no scores."""
    assert len(method.score(Table.of(Layout([]), np.zeros(0)))) == 0


def test_a_layout_without_features_is_measured() -> None:
    """All of it together works for no features too."""
    assert len(measure(Table.of(Layout([]), np.zeros(0))).p_value) == 0


def test_adjusted_is_benjamini_hochberg() -> None:
    """The values of scipy.stats.false_discovery_control; NaN passes through."""
    from scipy.stats import false_discovery_control

    p = np.array([0.01, 0.04, np.nan, 0.03, 0.5])
    known = ~np.isnan(p)
    assert adjusted(p)[known] == pytest.approx(false_discovery_control(p[known]))
    assert np.isnan(adjusted(p)[2])
