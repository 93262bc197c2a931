"""Features as segments, by the reference's quantiles or by category."""

import numpy as np
import pytest

from mlspan_processor.sample import Sample
from mlspan_processor.segments import OTHER, cut
from tests.processor.quality.samples import made


def with_columns(numbers: np.ndarray, codes: np.ndarray) -> Sample:
    """Two features."""
    n = len(numbers)
    cells = np.stack([numbers.astype(np.float32).view(np.uint32), codes.astype(np.uint32)])
    base = made("regression", np.zeros(n), np.zeros(n))
    fields = {name: getattr(base, name) for name in base.__slots__}
    return Sample(**{**fields, "names": ("age", "city"), "types": ("numeric", "categorical"), "cells": cells})


def test_numbers_by_quantiles() -> None:
    """Five parts of equally many reference rows; another sample's rows go to the same parts, missing ones to none."""
    values = np.random.default_rng(0).normal(size=1000)
    by = cut(with_columns(values, np.ones(1000)), "age")
    assert len(by.labels) == 5
    assert np.bincount(by.of(with_columns(values, np.ones(1000))).codes) == pytest.approx([200] * 5, abs=1)
    found = by.of(with_columns(np.array([-99.0, 99.0, np.nan]), np.ones(3)))
    assert found.codes.tolist() == [0, 4, -1]
    assert found.labels[0].startswith("up to ")
    assert found.labels[4].startswith("above ")


def test_numbers_that_repeat() -> None:
    """Have fewer parts, none of them empty; a constant has one, so has a column without values."""
    values = np.repeat([1.0, 2.0], [900, 100])
    assert cut(with_columns(values, np.ones(1000)), "age").labels == ("up to 1", "above 1")
    for constant in (np.ones(50), np.full(50, np.nan)):
        assert cut(with_columns(constant, np.ones(50)), "age").labels == ("all",)


def test_categories() -> None:
    """The most frequent by readable name, the rest "other", missing none."""
    codes = np.repeat([7, 3, 9, 0], [50, 30, 10, 5])
    by = cut(with_columns(np.zeros(95), codes), "city", most=2, texts={7: "Oslo", 3: "Rome"})
    assert by.labels == ("Oslo", "Rome", OTHER)
    sample = with_columns(np.zeros(5), np.array([3, 7, 9, 12, 0]))
    assert by.of(sample).codes.tolist() == [1, 0, 2, 2, -1]
    assert by.added(sample).segments["city"].labels == by.labels
    assert by.added(sample).names == ("age", "city")
    assert cut(with_columns(np.zeros(3), np.zeros(3)), "city").of(sample).codes.tolist() == [0, 0, 0, 0, -1]


def test_no_such_feature() -> None:
    """Is an error that names those there are."""
    with pytest.raises(ValueError, match='no feature "agee"; there are age, city'):
        cut(with_columns(np.zeros(3), np.zeros(3)), "agee")
