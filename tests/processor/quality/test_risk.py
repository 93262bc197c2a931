"""The risk test: its level over long streams and many looks, its power, its state."""

import json

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.quality.realised import labelled
from mlspan_processor.quality.risk import LOSSES, RiskTest, losses_of
from tests.processor.quality.samples import binary, made, multiclass, multilabel, regression

STREAMS = 100


def errors(rng: np.random.Generator, rate: float, n: int) -> np.ndarray:
    """Losses of 0 and 1."""
    return (rng.random(n) < rate).astype(np.float64)


@pytest.mark.parametrize("kind", ["errors", "smooth", "weighted"])
def test_level_over_ten_thousand_looks(kind: str) -> None:
    """With a risk that has risen by just the tolerance, at most 5 % of streams ever raise an alarm."""
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(STREAMS):
        weights = None
        if kind == "smooth":
            test = RiskTest.of_reference(rng.beta(1, 9, 2000), tolerance=0.02, level=0.05)
            stream = rng.beta(1.2, 8.8, 10_000)
        else:
            test = RiskTest.of_reference(errors(rng, 0.1, 2000), tolerance=0.02, level=0.05)
            stream = errors(rng, 0.12, 10_000)
            weights = rng.choice([1.0, 1.0, 6.0], 10_000) if kind == "weighted" else None
        # Looking at blocks' ends is looking at all of its own looks: 10,000 rows in batches of 50 in between.
        for start in range(0, 10_000, 50):
            test.update(stream[start : start + 50], None if weights is None else weights[start : start + 50])
        alarms += test.alarm
    assert alarms <= stats.binom.ppf(0.999, STREAMS, 0.05)


def test_level_when_the_reference_is_known_and_every_row_is_looked_at() -> None:
    """10,000 looks a stream, one row at a time, at the limit itself."""
    rng = np.random.default_rng(12)
    alarms = 0
    for _ in range(3):
        test = RiskTest(0.1, 0.09, level=0.05)
        for loss in errors(rng, 0.1, 10_000).reshape(-1, 1):
            test.update(loss)
        alarms += test.alarm
    assert alarms <= stats.binom.ppf(0.999, 3, 0.05)


@pytest.mark.parametrize("before", [0, 10_000])
def test_power(before: int) -> None:
    """A rise from 10 to 20 % is found within 1,000 labels by most streams, 3,000 by all, also after a good time."""
    rng = np.random.default_rng(13)
    delays = []
    for _ in range(20):
        test = RiskTest.of_reference(errors(rng, 0.1, 5000), level=0.01)
        assert not test.update(errors(rng, 0.1, before)).alarm
        delay = 0
        while not test.update(errors(rng, 0.2, 50)).alarm:
            delay += 50
        delays.append(delay)
    assert np.median(delays) < 1000
    assert max(delays) < 3000


def test_verdict_in_units_of_the_loss() -> None:
    """Risk with its band, limit and labels; an alarm stays until the test begins anew."""
    rng = np.random.default_rng(0)
    test = RiskTest.of_reference(errors(rng, 0.1, 5000), tolerance=0.02)
    verdict = test.update(errors(rng, 0.3, 2000))
    assert verdict.alarm
    assert verdict.risk == pytest.approx(0.3, abs=0.05)
    assert verdict.low is not None
    assert verdict.limit is not None
    assert verdict.low > verdict.limit > 0.12
    assert verdict.labels == 2000
    assert test.update(errors(rng, 0.05, 2000)).alarm
    test.reset()
    assert not test.verdict().alarm
    assert test.verdict().e_value == 1.0


def test_state_survives_as_json() -> None:
    """A test that was written and read goes on as the one that was not."""
    rng = np.random.default_rng(0)
    test = RiskTest.of_reference(errors(rng, 0.1, 1000))
    test.update(errors(rng, 0.1, 777))
    again = RiskTest.from_dict(json.loads(json.dumps(test.to_dict())))
    more = errors(rng, 0.15, 777)
    assert again.update(more) == test.update(more)


def test_losses() -> None:
    """Each loss of each task lies in [0, 1]; rows without label or answer have none."""
    rng = np.random.default_rng(0)
    for maker in (binary, multiclass, multilabel):
        batch = labelled(maker(rng, 100))
        for loss in ("error", "brier"):
            values = losses_of(batch, loss, n_classes=2)
            assert ((values >= 0) & (values <= 1)).all()
    batch = labelled(made("binary", [0, 1, np.nan], [0, np.nan, 1], [[0.2], [0.9], [0.5]]))
    np.testing.assert_array_equal(losses_of(batch, "error"), [0, np.nan, np.nan])
    np.testing.assert_allclose(losses_of(batch, "brier"), [0.04, 0.01, np.nan])
    assert np.isnan(losses_of(batch._replace(scores=None), "brier")).all()


def test_regression_in_units_of_the_label() -> None:
    """Risk and limit are mean absolute errors; the tolerance is relative to the reference's."""
    rng = np.random.default_rng(0)
    reference = regression(rng, 5000)
    test = RiskTest.of_sample(reference, tolerance=0.1)
    mae = float(np.abs(reference.predictions - reference.labels).mean())
    limit = test.verdict().limit
    assert limit is not None
    assert 1.1 * mae < limit < 1.25 * mae
    batch = labelled(regression(rng, 3000))
    assert not test.update_batch(batch).alarm
    worse = batch._replace(predictions=batch.labels + 1.6 * (batch.predictions - batch.labels))
    assert test.update_batch(worse).alarm


def test_no_verdict() -> None:
    """A reference that is too small, or so bad that nothing can be worse, gives a reason and never an alarm."""
    rng = np.random.default_rng(0)
    for test, why in (
        (RiskTest.of_reference(errors(rng, 0.1, 50)), "only 50 labelled rows"),
        (RiskTest.of_reference(np.full(20, np.nan)), "no risk can exceed"),
        (RiskTest.of_share(0.1, 20), "only 20 labelled rows"),
        (RiskTest.of_reference(np.ones(1000)), "no risk can exceed"),
    ):
        verdict = test.update(np.ones(5000))
        assert not verdict.alarm
        assert verdict.limit is None
        assert verdict.reason.startswith("undecidable, because")
        assert why in verdict.reason or "only 0 labelled rows" in verdict.reason
    assert not RiskTest(0.1, 0.09).update(np.array([np.nan, np.nan])).labels


def test_only_the_error_rate_is_known() -> None:
    """A reference of which share and rows are known gives the same limit as its rows."""
    rows = (np.arange(1000) % 10 == 0).astype(np.float64)
    assert RiskTest.of_share(0.1, 1000).limit == pytest.approx(RiskTest.of_reference(rows).limit)


def test_mistakes_are_told() -> None:
    """Unknown losses and levels name what is valid."""
    with pytest.raises(ValueError, match=", ".join(LOSSES)):
        RiskTest(0.1, 0.1, loss="hinge")
    with pytest.raises(ValueError, match="between 0 and 1"):
        RiskTest(0.1, 0.1, level=5)
