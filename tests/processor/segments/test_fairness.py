"""Group fairness: definitions, bands, groups that are too small."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.quality.realised import empty_quality, labelled, realised
from mlspan_processor.sample import Sample, Segment
from mlspan_processor.segments import SegmentedQuality, fairness, fairness_of
from tests.processor.quality.samples import binary, made, multiclass, regression

GROUPS = ("a", "b", "c")


def grouped(rng: np.random.Generator, n: int, rates: tuple[float, ...] = (0.3, 0.5, 0.4)) -> Sample:
    """Answers that favour groups at these rates, whatever the label."""
    codes = rng.integers(0, len(rates), n).astype(np.int32)
    said = rng.random(n) < np.array(rates)[codes]
    labels = rng.random(n) < 0.4
    return made("binary", labels, said, None, None, ("no", "yes"), {"sex": Segment(codes, GROUPS[: len(rates)])})


def test_definitions() -> None:
    """Gaps of the groups' rates as fairlearn defines them, and between which groups they are."""
    sample = grouped(np.random.default_rng(0), 3000)
    found = fairness(sample, "sex")
    codes, said, true = sample.segments["sex"].codes, sample.predictions, sample.labels
    selected = [said[codes == g].mean() for g in range(3)]
    hits = [said[(codes == g) & (true == 1)].mean() for g in range(3)]
    alarms = [said[(codes == g) & (true == 0)].mean() for g in range(3)]
    expected = {
        "demographic_parity_difference": max(selected) - min(selected),
        "demographic_parity_ratio": min(selected) / max(selected),
        "equal_opportunity_difference": max(hits) - min(hits),
        "equalised_odds_difference": max(max(hits) - min(hits), max(alarms) - min(alarms)),
    }
    for name, value in expected.items():
        one = found.figures[name]
        assert one.value == pytest.approx(value), name
        assert one.low is not None
        assert one.high is not None
        assert one.low < value < one.high
        assert one.groups == ("b", "a")
    assert found.favourable == "yes"
    assert [one.rates["selection_rate"].value for one in found.groups] == pytest.approx(selected)
    assert found.figures["demographic_parity_difference"].rows == 3000
    assert found.to_dict()["groups"]["a"]["rows"] == int((codes == 0).sum())


def test_against_a_privileged_group() -> None:
    """The ratio is the smallest rate of the others over its rate."""
    sample = grouped(np.random.default_rng(0), 3000)
    rates = [one.rates["selection_rate"].value or 0.0 for one in fairness(sample, "sex").groups]
    one = fairness(sample, "sex", privileged="c").figures["demographic_parity_ratio"]
    assert one.value == pytest.approx(min(rates[0], rates[1]) / rates[2])
    assert one.groups == ("c", "a")


def test_bands_cover() -> None:
    """Of 100 samples about 95 % or more have the true gap and ratio in their bands, also where there is no gap."""
    rng = np.random.default_rng(1)
    for rates in ((0.4, 0.4, 0.4), (0.3, 0.5, 0.4)):
        missed = {"demographic_parity_difference": 0, "demographic_parity_ratio": 0}
        truth = max(rates) - min(rates), min(rates) / max(rates)
        for _ in range(100):
            found = fairness(grouped(rng, 600, rates), "sex").figures
            for name, value in zip(missed, truth, strict=True):
                low, high = found[name].low, found[name].high
                assert low is not None
                assert high is not None
                missed[name] += not low <= value <= high + 1e-12
        assert max(missed.values()) <= stats.binom.ppf(0.999, 100, 0.05)


def test_sums_give_the_same() -> None:
    """From a stream's sums by group."""
    sample = grouped(np.random.default_rng(0), 3000)
    quality = SegmentedQuality(lambda: empty_quality(sample))
    quality.update(labelled(sample), sample.segments["sex"].codes, GROUPS)
    found = fairness_of("sex", quality.parts)
    for name, one in fairness(sample, "sex").figures.items():
        assert found.figures[name][:3] == pytest.approx(one[:3])


def test_undecidable() -> None:
    """Small groups are left out, one group alone has no gap; no labels leave parity; other tasks have none."""
    rng = np.random.default_rng(0)
    sample = grouped(rng, 1000)
    codes = np.where(np.arange(1000) < 10, 2, sample.segments["sex"].codes % 2).astype(np.int32)
    found = fairness(replace(sample, segments={"sex": Segment(codes, GROUPS)}), "sex")
    assert found.figures["demographic_parity_difference"].rows == 990
    alone = fairness(replace(sample, segments={"sex": Segment(np.zeros(1000, np.int32), ("a",))}), "sex")
    reason = alone.figures["demographic_parity_ratio"].reason
    assert reason == "undecidable, because fewer than two groups have 30 rows for the selection rate"
    unlabelled = fairness(replace(sample, labels=np.full(1000, np.nan)), "sex").figures
    assert unlabelled["demographic_parity_difference"].value is not None
    assert unlabelled["equal_opportunity_difference"].value is None
    nobody = fairness(replace(sample, predictions=np.zeros(1000)), "sex").figures
    assert nobody["demographic_parity_ratio"].reason == "undecidable, because nobody was selected"
    for other in (regression(rng, 1000), multiclass(rng, 1000)):
        one = fairness(replace(other, segments=sample.segments), "sex").figures["demographic_parity_ratio"]
        assert one.reason.startswith("undecidable, because")
    many = replace(multiclass(rng, 1000), segments=sample.segments)
    assert fairness(many, "sex", favourable="b").figures["demographic_parity_difference"].value is not None


def test_a_group_changes_nothing_of_the_model() -> None:
    """A group is a segment: it is no feature, and the figures of the whole are those without it."""
    sample = grouped(np.random.default_rng(0), 500)
    assert sample.names == ()
    assert realised(sample) == realised(replace(sample, segments={}))


def test_mistakes_are_told() -> None:
    """Segments, classes and groups that are not there."""
    sample = grouped(np.random.default_rng(0), 100)
    with pytest.raises(ValueError, match='no segment "age"; there are sex'):
        fairness(sample, "age")
    with pytest.raises(ValueError, match='no class "maybe"; there are no, yes'):
        fairness(sample, "sex", favourable="maybe")
    with pytest.raises(ValueError, match='no group "d"; there are a, b, c'):
        fairness(sample, "sex", privileged="d")
    assert binary(np.random.default_rng(0), 10).segments == {}
