"""Stage 6, part 10: performance of one model version: what the reference promises, what labels say, what is estimated.

In: labelled rows as their labels arrive, rows of closed windows. Out: reference figures; the anytime-valid test whether
the risk has risen; estimates. The labelled reference is the sample beside the profile (``mlspan reference build`` with
labels), or the first `reference.learn_rows` labelled rows of the model version, then frozen: an estimate never moves
because a label arrived.
Rows wait until labels of their age are mature, and are taken in the order of their predictions: labels that come first
are often of one kind. Fitting and estimating are done in the background; until the first is over nothing is estimated,
and windows that close while the second is under way are left out.
Memory: `MAX_WAITING` rows that mature, the labelled reference until it is used, tests and estimator, five spans.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_PROBABILITY
from mlspan_processor.estimate import Estimate, Estimator
from mlspan_processor.model import Model
from mlspan_processor.monitors.one_thread import one_thread
from mlspan_processor.monitors.rows import likeliest, task_of
from mlspan_processor.outputs import unpacked
from mlspan_processor.pending import Pending
from mlspan_processor.quality.base import Labelled as Batch
from mlspan_processor.quality.maturity import Delays
from mlspan_processor.quality.realised import realised
from mlspan_processor.quality.risk import RiskTest
from mlspan_processor.sample import Sample

MAX_WINDOWS: Final = 100
"""Estimates that are remembered."""
MAX_WAITING: Final = 50_000
"""Labelled rows that wait until labels of their age are mature; beyond it the oldest are taken at once."""
_SECOND: Final = 1_000_000_000
_NEEDS: Final = ("sklearn.ensemble",)
_DELAYS: Final = 200_000.0
"""Labels whose delays are known, from which on the past counts half, so that quantiles follow."""
Background = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""Runs the first elsewhere, and the second with its result (None where it failed) on the state thread."""


class EstimatedWindow(NamedTuple):
    """Estimates of one closed window."""

    start: int
    end: int
    rows: float
    estimates: dict[str, Estimate]


class Labelled(NamedTuple):
    """Labelled rows, n of them: labels, predictions (n,), of several outputs (n, n_outputs), scores (n, width) or None,
    weights, times (n,)."""

    labels: NDArray[np.float64]
    predictions: NDArray[np.float64]
    scores: NDArray[np.float64] | None
    weights: NDArray[np.float64]
    times: NDArray[np.int64]


class Performance:
    """One model version.

    Attributes:
        figures: what the labelled reference says, by metric; empty until there is one.
        origin: where they come from, in words.
        estimator: None until it is fitted.
        tests: risk tests by (level, tolerance); tolerance 0 is the test's own.
        windows: estimates of the last closed windows.
        delays: how long labels take.
        last_label_ns, since_ns: time of the newest labelled prediction, and of that at the last batch without alarm.
        wrong: spans of the last wrong predictions.
    """

    def __init__(self, learn_rows: int, background: Background) -> None:
        self._wanted = learn_rows
        self._background = background
        self._learning: list[Labelled] = []
        self._learnt_rows = 0
        self._waiting: list[Labelled] = []
        self._asked: list[tuple[float, float]] = []
        self._reference: Sample | None = None
        self.figures: dict[str, float] = {}
        self.origin = ""
        self.estimator: Estimator | None = None
        self.reason = "undecidable, because there is no labelled reference yet"
        self.tests: dict[tuple[float, float], RiskTest] = {}
        self.windows: deque[EstimatedWindow] = deque(maxlen=MAX_WINDOWS)
        self.delays = Delays()
        self.last_label_ns = self.since_ns = 0
        self._saved = True
        # Rows that wait for labels have no features: what was learnt from them knows scores only.
        self._bare = False
        self._estimating = False
        self.wrong: deque[tuple[str, str]] = deque(maxlen=5)

    @property
    def ready(self) -> bool:
        """Whether there is a labelled reference."""
        return bool(self.figures)

    def design_effect(self, rows: float) -> float:
        """How many labels of so many on end tell as much as an independent one, as the tests know; 1 without any."""
        return max((test.runs.within(rows) for test in self.tests.values()), default=1.0)

    def ask(self, level: float, tolerance: float) -> None:
        """A monitor wants a risk test."""
        if (level, tolerance) not in self._asked:
            self._asked.append((level, tolerance))

    def refer(self, sample: Sample, origin: str = "in the reference") -> None:
        """Take a labelled reference; tests and estimates begin anew."""
        self.origin = origin
        found = {name: figure.value for name, figure in realised(sample).items() if figure.value is not None}
        self.figures = {name: float(value) for name, value in found.items()}
        self._learning = []
        self.estimator, self.tests = None, {}
        self.windows.clear()
        if not self.figures:
            self.reason = "undecidable, because the labelled reference gives no figure"
            return
        self._reference = sample
        self._bare = not sample.names
        for level, tolerance in self._asked:
            self.tests[level, tolerance] = RiskTest.of_sample(sample, tolerance=tolerance or None, level=level)
        self.reason = "undecidable, because the estimator is being fitted"
        self._background(
            lambda: one_thread(lambda: Estimator.fit(sample), _NEEDS), lambda fitted: self._fitted(sample, fitted)
        )

    def labelled(
        self, model: Model, places: NDArray[np.intp], pending: Pending, now: int
    ) -> list[tuple[NDArray[np.bool_], Labelled]]:
        """Take rows whose label has just come; returns them in parts, each with which of the places it has.

        Args:
            model: whose rows.
            places: of the rows in the ring.
            pending: the ring.
            now: nanoseconds since the epoch.
        """
        columns = pending.columns
        times = columns["time"][places]
        self.delays.add((now - times) / _SECOND, columns["weight"][places].astype(np.float64))
        if self.delays.labels > _DELAYS:
            self.delays.counts /= 2
        parts = []
        kinds = columns["score_kind"][places]
        for kind in np.unique(kinds).tolist():
            chosen = kinds == kind
            at = places[chosen]
            rows = _labelled(model, pending, at, kind == SCORE_PROBABILITY)
            parts.append((chosen, rows))
            self._remember_wrong(model, rows, columns, at)
            self._waiting.append(rows)
        return parts

    def mature(self, model: Model, until: int) -> int:
        """Take the labelled rows whose predictions were made by `until`, in their order; returns how many."""
        if not self._waiting:
            return 0
        whole = _joined(self._waiting)
        order = np.argsort(whole.times, kind="stable")
        ripe = order[whole.times[order] <= until]
        ripe = order[: max(len(ripe), len(order) - MAX_WAITING)]
        if not len(ripe):
            self._waiting = [whole]
            return 0
        rest = np.setdiff1d(order, ripe)
        self._waiting = [_chosen(whole, rest)] if len(rest) else []
        rows = _chosen(whole, ripe)
        if self.ready:
            self._test(rows)
        else:
            self._learn(model, rows)
        return len(ripe)

    def estimate(
        self, sample: Sample, start: int, end: int, rows: float, then: Callable[[EstimatedWindow], None]
    ) -> None:
        """Estimate a closed window, in the background; nothing without an estimator, or while one is under way."""
        estimator = self.estimator
        if estimator is None or self._estimating:
            return
        if self._bare:
            sample = replace(sample, names=(), types=(), cells=np.zeros((0, len(sample)), np.uint32))

        def estimated(estimates: dict[str, Estimate] | None) -> None:
            self._estimating = False
            if estimates is None:
                return
            window = EstimatedWindow(start, end, rows, estimates)
            self.windows.append(window)
            then(window)

        self._estimating = True
        self._background(lambda: one_thread(lambda: estimator.estimate(sample), _NEEDS), estimated)

    def _fitted(self, sample: Sample, fitted: Estimator | None) -> None:
        if fitted is None:
            self.reason = "undecidable, because fitting the estimator failed"
        # Another reference may have come meanwhile.
        elif self._reference is sample:
            self.estimator, self._reference = fitted, None
            self.reason = fitted.reason
            self._saved = False

    def _restored(self, estimator: Estimator | None) -> None:
        if estimator is not None and self.estimator is None and self._reference is None:
            self.estimator, self.reason = estimator, estimator.reason

    def _learn(self, model: Model, rows: Labelled) -> None:
        self._learning.append(rows)
        if sum(len(one.labels) for one in self._learning) < self._wanted:
            return
        whole, self._learning = _joined(self._learning), []
        sample = Sample(
            task_of(model),
            (),
            (),
            np.zeros((0, len(whole.labels)), np.uint32),
            tuple(model.classes[: model.declared]),
            whole.predictions,
            whole.labels,
            whole.scores,
            whole.weights,
            whole.times,
        )
        self.refer(sample, f"in the first {len(sample):,} labels")

    def _test(self, rows: Labelled) -> None:
        self.last_label_ns = max(self.last_label_ns, int(rows.times.max()))
        batch = Batch(rows.labels, rows.predictions, None, 0, rows.weights)
        alarm = False
        for test in self.tests.values():
            verdict = test.update_batch(batch)
            # Fine again: the last rows' risk is back within the tolerance.
            if (
                verdict.alarm
                and verdict.risk is not None
                and verdict.limit is not None
                and verdict.risk <= verdict.limit
            ):
                test.reset()
            alarm |= test.alarm
        if not alarm:
            self.since_ns = self.last_label_ns

    def _remember_wrong(self, model: Model, rows: Labelled, columns: dict[str, Any], at: NDArray[np.intp]) -> None:
        if model.declared:
            wrong = (rows.predictions != rows.labels) & ~np.isnan(rows.predictions)
            places = at[wrong if wrong.ndim == 1 else wrong.any(axis=1)][-5:]
        else:
            places = at[np.argsort(np.abs(rows.predictions - rows.labels))[-2:]]
        for place in places.tolist():
            trace = b"".join(int(columns[half][place]).to_bytes(8, "little") for half in ("trace_0", "trace_1"))
            self.wrong.append((trace.hex(), int(columns["span"][place]).to_bytes(8, "little").hex()))

    def to_dict(self) -> dict[str, Any]:
        """What survives a restart, without the estimator."""
        return {
            "figures": self.figures,
            "origin": self.origin,
            "bare": self._bare,
            "last_label_ns": self.last_label_ns,
            "since_ns": self.since_ns,
            "reason": self.reason,
            "tests": [[list(key), test.to_dict()] for key, test in self.tests.items()],
            "delays": self.delays.to_dict(),
            "wrong": list(self.wrong),
        }

    def unsaved(self) -> bytes | None:
        """The estimator, where it is a new one since the last call."""
        if self._saved or self.estimator is None:
            return None
        self._saved = True
        return self.estimator.to_bytes()

    def restore(self, state: dict[str, Any], estimator: bytes) -> None:
        """Go on with what `to_dict` and the estimator described."""
        self.delays = Delays.from_dict(state["delays"])
        self.wrong.extend((trace, span) for trace, span in state["wrong"])
        if not state["figures"] or not estimator:
            return
        self.figures, self.origin = dict(state["figures"]), str(state.get("origin", "in the reference"))
        self.last_label_ns, self.since_ns = int(state["last_label_ns"]), int(state["since_ns"])
        self.tests = {(key[0], key[1]): RiskTest.from_dict(test) for key, test in state["tests"]}
        self._bare = bool(state["bare"])
        self.reason = "undecidable, because the estimator is being fitted"
        self._background(lambda: Estimator.from_bytes(estimator), self._restored)


def figure_of(test: RiskTest, metric: str, risk: float) -> float:
    """A risk as the figure that people know: accuracy, mean absolute error, or Hamming loss."""
    return risk if test.loss == "absolute" or metric == "hamming_loss" else 1.0 - risk


def _labelled(model: Model, pending: Pending, at: NDArray[np.intp], probabilities: bool) -> Labelled:
    columns = pending.columns
    scores = pending.scores(at) if probabilities else None
    known = None if scores is None else scores.astype(np.float64)
    predictions, labels = columns["prediction"][at].copy(), columns["label"][at].copy()
    if model.kind == "multilabel":
        predictions, labels = unpacked(predictions, model.declared), unpacked(labels, model.declared)
    elif known is not None:
        silent = np.isnan(predictions)
        predictions[silent] = likeliest(known[silent])
    weights = columns["weight"][at].astype(np.float64)
    return Labelled(labels, predictions, known, weights, columns["time"][at].copy())


def _joined(parts: list[Labelled]) -> Labelled:
    """All rows; without scores where they are not all of one width."""
    widths = {0 if one.scores is None else one.scores.shape[1] for one in parts}
    scores = None
    if len(widths) == 1 and 0 not in widths:
        scores = np.concatenate([one.scores for one in parts if one.scores is not None])
    return Labelled(
        np.concatenate([one.labels for one in parts]),
        np.concatenate([one.predictions for one in parts]),
        scores,
        np.concatenate([one.weights for one in parts]),
        np.concatenate([one.times for one in parts]),
    )


def _chosen(rows: Labelled, at: NDArray[np.intp]) -> Labelled:
    scores = None if rows.scores is None else rows.scores[at]
    return Labelled(rows.labels[at], rows.predictions[at], scores, rows.weights[at], rows.times[at])
