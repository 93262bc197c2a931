"""Odd rows and labels in the stream: each has a reason in place of a number, opens nothing and fails nothing."""

import time
from typing import Any

import numpy as np
import pytest

from mlspan_processor.labels import Label
from mlspan_processor.model_spans import ModelSpans, prediction_id
from tests.processor.helpers import SECOND, Rig
from tests.processor.test_judge import events_of

SETTINGS: dict[str, Any] = {"reference": {"learn_rows": 200}, "window": {"min_rows": 100, "min_labels": 100}}


class Odd:
    """Some panes of calls with something odd about them, and what was said of them."""

    def __init__(self, rig: Rig, panes: int = 8) -> None:
        self.rig, self.panes = rig, panes
        self.spans = ModelSpans(columns=("a", "b", "c"), types=("numeric",) * 3)
        self.random = np.random.default_rng(0)

    def columns(self, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Rows (n, 3)."""
        return self.random.normal(0, 1, (n, 3)).astype(np.float32)

    def scores(self, rows: Any) -> Any:
        """Probabilities (n, 2)."""
        p = 1 / (1 + np.exp(-rows[:, 0]))
        return np.stack([1 - p, p], axis=1).astype(np.float32)

    def label(self, rows: Any) -> Any:
        """Whether each row is of the last class."""
        return self.random.random(len(rows)) < 1 / (1 + np.exp(-rows[:, 0]))

    def times(self) -> list[int]:
        """When the two calls of a pane end."""
        return [self.rig.clock.now, self.rig.clock.now]

    def settle(self) -> None:
        """Wait for the background."""
        judge, deadline = self.rig.connector._state.judge, time.monotonic() + 250
        while judge.busy:
            assert time.monotonic() < deadline
            time.sleep(0.002)
            self.rig.connector._ask(judge.catch_up)

    def run(self) -> dict[str, Any]:
        """The report, after which nothing has failed and nothing was opened."""
        for _ in range(self.panes):
            given = []
            for end in self.times():
                rows = self.columns(50)
                span = self.spans.add(rows, (rows[:, 0] > 0).astype(int), self.scores(rows), end=end)
                truth = self.label(rows)
                given += [Label(prediction_id(span, i), "yes" if one else "no") for i, one in enumerate(truth)]
            self.rig.send(self.spans.chunk())
            self.rig.connector.submit_labels(given)
            self.rig.clock.advance(10)
            self.rig.connector.flush()
            self.settle()
        counters = self.rig.counters()
        assert (counters["failed_blocks"], counters["failed_judgements"]) == (0, 0)
        assert events_of(self.rig.logs.chunks) == []
        return self.rig.connector.report("fraud")


class OneClass(Odd):
    """All labels are of one class."""

    def label(self, rows: Any) -> Any:
        """Always the last."""
        return np.ones(len(rows), bool)


class NoNumbers(Odd):
    """One column is constant, and one has no value."""

    def columns(self, n: int) -> Any:
        """Rows (n, 3)."""
        rows = super().columns(n)
        rows[:, 1], rows[:, 2] = 5.0, np.nan
        return rows


class Extreme(Odd):
    """One column has the largest numbers of either sign that there are, and one the smallest."""

    def columns(self, n: int) -> Any:
        """Rows (n, 3)."""
        rows = super().columns(n)
        rows[:, 1] = np.where(self.random.random(n) < 0.5, -3e38, 3e38)
        rows[:, 2] *= 1e-38
        return rows


class NoProbabilities(Odd):
    """Percentages."""

    def scores(self, rows: Any) -> Any:
        """A hundred times too large."""
        return 100 * super().scores(rows)


class Uneven(Odd):
    """Probabilities that sum to 1.4."""

    def scores(self, rows: Any) -> Any:
        """0.7 of both."""
        return np.full((len(rows), 2), 0.7, np.float32)


class Jumping(Odd):
    """A clock that is a year ahead, or stands in 1970, in every other call."""

    def times(self) -> list[int]:
        """One of now, one of another time."""
        return [self.rig.clock.now, [SECOND, self.rig.clock.now + 365 * 86_400 * SECOND][self.random.integers(2)]]


def figure(report: dict[str, Any], name: str) -> tuple[Any, str]:
    """Value and reason of a realised figure."""
    found = report["quality"]["realised"][name]
    return found["value"], found["reason"]


def test_labels_of_one_class() -> None:
    """Accuracy is what it is; what needs both classes, and every estimate, says so."""
    with Rig(**SETTINGS) as rig:
        report = OneClass(rig).run()
    assert figure(report, "accuracy")[0] is not None
    assert figure(report, "roc_auc") == (None, "undecidable, because there are labels of one class only")
    performance = report["judged"]["performance"]
    assert performance["windows"] == [] or performance["windows"][-1]["estimated"]["accuracy"]["value"] is None
    assert performance["reason"].startswith("undecidable, because ")


def test_constant_and_empty_columns() -> None:
    """A constant has not drifted; a column without a value is undecidable, alone and together with the others."""
    with Rig(**SETTINGS) as rig:
        drift = NoNumbers(rig).run()["judged"]["drift"]
    by_name = {one["name"]: one for one in drift["features"]}
    assert by_name["b"]["drifted"] is False
    assert by_name["c"]["reason"] == "undecidable, because all values are missing"
    assert (by_name["c"]["effect"], by_name["c"]["p_adjusted"]) == (None, None)
    assert drift["multivariate"]["reason"].startswith("undecidable, because fewer than two features vary")


def test_numbers_at_the_ends_of_the_range() -> None:
    """Differences that float32 cannot hold are infinite, and no reason for a warning."""
    with Rig(**SETTINGS) as rig:
        Extreme(rig).run()


@pytest.mark.parametrize("kind", [NoProbabilities, Uneven])
def test_probabilities_that_are_none(kind: type[Odd]) -> None:
    """Those outside [0, 1] and those that do not sum to 1 give no log loss; accuracy stands."""
    with Rig(**SETTINGS) as rig:
        report = kind(rig).run()
    value, reason = figure(report, "log_loss")
    assert value is None
    assert reason.startswith("undecidable, because ")
    assert figure(report, "accuracy")[0] is not None


def test_clocks_that_jump() -> None:
    """Rows of other times are counted and left out; what is judged is the rest."""
    with Rig(**SETTINGS) as rig:
        report = Jumping(rig, panes=12).run()
        counters = rig.counters()
    assert counters["late_rows"] + counters["rows_ahead_of_time"] == 600
    assert report["judged"]["drift"]["rows"] <= 200


def test_labels_that_repeat_or_contradict() -> None:
    """The first stays; the others are counted by kind and change nothing."""
    with Rig(**SETTINGS) as rig:
        stream = Odd(rig)
        before = figure(stream.run(), "accuracy")
        span = stream.spans.add(stream.columns(1), [1], end=rig.clock.now)
        rig.send(stream.spans.chunk())
        label = prediction_id(span, 0)
        assert rig.connector.submit_labels([Label(label, "yes")]).joined == 1
        receipt = rig.connector.submit_labels([Label(label, "yes"), Label(label, "no"), Label(label, "no")])
        assert (receipt.duplicate, receipt.conflicting) == (1, 2)
        after = figure(rig.connector.report("fraud"), "accuracy")
    assert before[0] is not None
    assert after[0] == pytest.approx(before[0], abs=0.01)


def test_a_reference_of_few_rows() -> None:
    """Fewer than a hundred rows are no reference: the settings refuse it, and until then nothing is judged."""
    with pytest.raises(ValueError, match="learn_rows"):
        Rig(reference={"learn_rows": 99})
    with Rig(**SETTINGS) as rig:
        report = Odd(rig, panes=1).run()
    assert report["judged"]["drift"] is None
    assert report["drift"]["reason"] == "the reference is still being learnt"
