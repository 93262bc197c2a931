"""Figures by segment, and which values are worse than the rest beyond chance."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.quality import Classification
from mlspan_processor.quality.realised import labelled, realised
from mlspan_processor.sample import Sample, Segment
from mlspan_processor.segments import MISSING, OTHER, SegmentedQuality, figures, judged
from mlspan_processor.segments.figures import benjamini_hochberg
from mlspan_processor.store.codec import fields_of, fill, pack, unpack
from tests.processor.quality.samples import binary, multiclass, multilabel, regression


def cut_by(sample: Sample, rng: np.random.Generator, values: int, bad: int | None = None) -> Sample:
    """With a random segment of so many values; in the bad one answers are random."""
    codes = rng.integers(0, values, len(sample)).astype(np.int32)
    sample = replace(sample, segments={"region": Segment(codes, tuple(f"r{i}" for i in range(values)))})
    if bad is None:
        return sample
    predictions = sample.predictions.copy()
    rows = codes == bad
    predictions[rows] = rng.permutation(predictions[rows])
    return replace(sample, predictions=predictions)


@pytest.mark.parametrize("maker", [binary, multiclass, multilabel, regression])
def test_every_value_has_the_figures_of_its_rows(maker: Callable[..., Sample]) -> None:
    """Those of its rows alone, with bands; rows are counted."""
    rng = np.random.default_rng(0)
    sample = cut_by(maker(rng, 900, weighted=True), rng, 3)
    found = figures(sample)
    assert [one.value for one in found] == ["r0", "r1", "r2"]
    for i, one in enumerate(found):
        alone = sample.take(sample.segments["region"].codes == i)
        assert (one.segment, one.rows, one.labels) == ("region", len(alone), len(alone))
        for name, figure in realised(alone).items():
            assert one.figures[name].value == pytest.approx(figure.value, abs=0.02), name


def test_a_bad_value_is_found() -> None:
    """It is worse, with a difference, band and p-value against the other rows; the others are not."""
    rng = np.random.default_rng(1)
    found = figures(cut_by(binary(rng, 5000), rng, 8, bad=5))
    assert [one.value for one in found if one.worse] == ["r5"]
    bad = found[5]
    gap = bad.differences["accuracy"]
    assert bad.worse["accuracy"] == gap.difference < -0.05
    assert gap.low < gap.difference < gap.high < 0
    assert gap.p_value <= gap.p_adjusted < 0.01


def test_no_false_discoveries_in_good_models() -> None:
    """Of 40 models without a bad value, 10 values each, hardly any has a discovery at level 0.05."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(40):
        wrong += any(one.worse for one in figures(cut_by(binary(rng, 1000), rng, 10), level=0.05))
    assert wrong <= stats.binom.ppf(0.999, 40, 0.05)


def test_small_effects_and_few_rows() -> None:
    """A difference too small to matter is none; few rows, or no others, are not judged, with the reason."""
    rng = np.random.default_rng(1)
    sample = cut_by(binary(rng, 5000), rng, 8, bad=5)
    assert not any(one.worse for one in figures(sample, min_effect=0.9))
    codes = np.zeros(200, np.int32)
    codes[:10] = 1
    found = figures(replace(binary(rng, 200), segments={"s": Segment(codes, ("many", "few"))}))
    assert found[0].reason == "undecidable, because only 10 labelled rows have another value"
    assert found[1].reason == "undecidable, because it has only 10 labelled rows"
    assert found[1].figures["accuracy"].value is not None


def test_values_are_bounded() -> None:
    """The most frequent ones are told apart, the rest is "other"; rows without a value are nobody's."""
    rng = np.random.default_rng(0)
    codes = np.minimum(rng.geometric(0.2, 3000) - 1, 29).astype(np.int32)
    codes[:100] = -1
    sample = replace(binary(rng, 3000), segments={"s": Segment(codes, tuple(map(str, range(30))))})
    found = {one.value: one.rows for one in figures(sample, max_segments=4)}
    assert list(found) == ["0", "1", "2", "3", OTHER]
    assert sum(found.values()) == 2900
    assert found["0"] == int((codes == 0).sum())


def test_rows_without_labels_count_as_rows() -> None:
    """They are in no figure."""
    rng = np.random.default_rng(0)
    sample = cut_by(binary(rng, 400), rng, 2)
    labels = sample.labels.copy()
    labels[::2] = np.nan
    found = figures(replace(sample, labels=labels))
    assert sum(one.rows for one in found) == 400
    assert sum(one.labels for one in found) == 200


def test_sums_of_a_stream() -> None:
    """Merged parts give the figures of one pass, bounded in number and bytes, and survive as bytes."""
    rng = np.random.default_rng(0)
    sample = cut_by(binary(rng, 3000), rng, 12, bad=3)
    codes, values = sample.segments["region"].codes, sample.segments["region"].labels
    parts = []
    for rows in (slice(0, 1000), slice(1000, 3000)):
        part = SegmentedQuality(lambda: Classification(2))
        part.update(labelled(sample.take(rows)), codes[rows], values)
        parts.append(part)
    parts[0].merge(parts[1])
    whole = {one.value: one for one in figures(sample)}
    fresh = SegmentedQuality(lambda: Classification(2))
    fill(fresh, unpack(pack(fields_of(parts[0]))))
    for one in judged({"region": fresh}):
        assert one.labels == whole[one.value].labels
        assert one.figures["accuracy"] == whole[one.value].figures["accuracy"]
        assert one.worse.keys() == whole[one.value].worse.keys()
    few = SegmentedQuality(lambda: Classification(2), max_values=3)
    few.merge(parts[0])
    few.update(labelled(sample), np.full(3000, -1), values)
    assert len(few.parts) == 5
    assert {OTHER, MISSING} < set(few.parts)
    assert few.whole().rows == 6000
    assert few.nbytes < 5 * 40_000
    rests = few.rests()
    assert all(rests[value].rows + few.parts[value].rows == 6000 for value in few.parts)


def test_benjamini_hochberg_is_scipys() -> None:
    """Adjusted p-values in their order."""
    p = np.random.default_rng(0).random(40) ** 3
    assert benjamini_hochberg(p.tolist()) == pytest.approx(stats.false_discovery_control(p))
    assert benjamini_hochberg([]) == []
