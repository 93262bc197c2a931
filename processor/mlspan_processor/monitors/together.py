"""Stage 6, part 19: all features of one model version together, as when each stays as it was and what they have in
common goes.

In: the rows kept of closed windows (rows.py), the reference's own rows where a file has them (`NAME.sample.npz`). Out:
what drift/multivariate.py says of each window; findings for monitors. The detector is fitted once, on the reference's
rows or else on the first `reference.learn_rows` kept rows (at most `MAX_LEARNT`) of windows in which no feature has
drifted, and then frozen. Fitting and judging are done in the background; windows that close while one is judged are
left out.
Where a feature has drifted by itself that is what is told, and nothing is told of all together.
Memory: the rows that are learnt from, until they are enough (`LEARNT_BYTES` over all model versions, see judge.py); the
detector, half a MB for 50 features.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import orjson

from mlspan_processor.anomaly.findings import Exemplar, Finding
from mlspan_processor.drift.multivariate import Multivariate, MultivariateJudgement
from mlspan_processor.model import Model
from mlspan_processor.monitors.metrics import TOGETHER, watched
from mlspan_processor.monitors.performance import Background
from mlspan_processor.monitors.rows import Rows, joined, shape_of
from mlspan_processor.monitors.rules import Point
from mlspan_processor.monitors.settings import TOGETHER_LEVEL, Monitor
from mlspan_processor.monitors.words import MAX_EXEMPLARS, DriftWindow, exemplar_of
from mlspan_processor.sample import Sample

MAX_LEARNT: Final = 5_000
"""Rows that are learnt from, at most."""
MIN_LEARNT: Final = 1_000
"""Rows that are learnt from at least, where memory is scarce."""
_NOT_YET: Final = "undecidable, because no window has closed since the detector was fitted"


class TogetherWindow(NamedTuple):
    """One closed window.

    Attributes:
        judgement: of all features together, at `TOGETHER_LEVEL`.
        alone: whether a feature drifted by itself.
        start, end: nanoseconds since the epoch.
        exemplars: requests whose features lie farthest from the reference's.
    """

    judgement: MultivariateJudgement
    alone: bool
    start: int
    end: int
    exemplars: tuple[Exemplar, ...]


class Together:
    """One model version.

    Attributes:
        mark: which reference it is about; what the background finishes for an older one is passed over.
        detector: None until it is fitted.
        reason: why nothing is said; "" once something is.
        last: the last judged window, or None.
    """

    def __init__(self, learn_rows: int, background: Background) -> None:
        self._wanted = min(learn_rows, MAX_LEARNT)
        self._background = background
        self._learnt: list[Rows] = []
        self._busy = False
        self._saved = True
        self.detector: Multivariate | None = None
        self.reason = ""
        self.last: TogetherWindow | None = None
        self.restart("")

    def restart(self, mark: str) -> None:
        """Begin anew, against the reference with this mark."""
        self.mark, self._learnt, self._busy = mark, [], False
        self.detector, self.last = None, None
        self.reason = f"undecidable, because fewer than {self._wanted:,} rows have been learnt from"

    def refer(self, sample: Sample) -> None:
        """Fit on a reference's rows, in the background."""
        mark, self._learnt, self._busy = self.mark, [], True
        self.reason = "undecidable, because the detector is being fitted"

        def fitted(detector: Multivariate | None) -> None:
            if self.mark != mark or self.detector is not None:
                return
            self._busy = False
            if detector is None:
                self.reason = "undecidable, because fitting the detector failed"
                return
            self.detector, self.reason, self._saved = detector, detector.reason or _NOT_YET, False

        self._background(lambda: Multivariate.fit(sample), fitted)

    def take(self, rows: Rows, drift: DriftWindow, then: Callable[[TogetherWindow], None]) -> None:
        """Judge the rows of a closed window, or learn from them; `then` gets the judgement, at a tick."""
        if self._busy:
            return
        alone = bool(drift.judgement.drifted[: len(rows.sample.names)].any())
        detector = self.detector
        if detector is None:
            if not alone:
                self._learn(rows)
            return
        mark, self._busy = self.mark, True

        def judge() -> TogetherWindow:
            judgement = detector.judge(rows.sample, TOGETHER_LEVEL)
            return TogetherWindow(judgement, alone, drift.start, drift.end, _exemplars(detector, judgement, rows))

        def judged(window: TogetherWindow | None) -> None:
            if self.mark != mark:
                return
            self._busy = False
            if window is not None:
                self.last, self.reason = window, window.judgement.reason
                then(window)

        self._background(judge, judged)

    def _learn(self, rows: Rows) -> None:
        if self._learnt and shape_of(self._learnt[0]) != shape_of(rows):
            self._learnt = []
        self._learnt.append(rows)
        if sum(len(one.sample) for one in self._learnt) >= self._wanted:
            self.refer(joined(self._learnt).sample)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows that are learnt from."""
        return sum(one.cells.nbytes + one.sample.cells.nbytes for one in self._learnt)

    def hurry(self) -> None:
        """Learn from the rows there are, since they take room; too few are forgotten."""
        if sum(len(one.sample) for one in self._learnt) >= MIN_LEARNT:
            self.refer(joined(self._learnt).sample)
        self._learnt = []

    def unsaved(self) -> bytes | None:
        """The detector with its reference's mark, where it is a new one since the last call."""
        if self._saved or self.detector is None:
            return None
        self._saved = True
        return orjson.dumps([self.mark, self.detector.to_dict()])

    def restore(self, data: bytes) -> None:
        """Go on with what `unsaved` gave, where the reference is the same."""
        mark, state = orjson.loads(data)
        if mark == self.mark:
            self.detector = Multivariate.from_dict(state)
            self.reason, self._busy = self.detector.reason or _NOT_YET, False


def together_points(window: TogetherWindow) -> dict[str, list[Point]]:
    """The effect of a window as a series."""
    return {TOGETHER: [Point(TOGETHER, window.judgement.effect, None, window.start, window.end)]}


def together_findings(monitor: Monitor, model: Model, window: TogetherWindow) -> dict[str, Finding | None]:
    """What a monitor with the method drift says of a window; nothing where that is undecidable."""
    judgement = window.judgement
    if judgement.p_value is None or judgement.effect is None:
        return {}
    large = judgement.material if monitor.min_effect is None else judgement.effect >= monitor.min_effect
    if window.alone or not large or judgement.p_value > monitor.level:
        return {TOGETHER: None}
    return {
        TOGETHER: Finding(
            subject=TOGETHER,
            kind=watched(TOGETHER).kind,
            model=model.name,
            version=model.version,
            severity=monitor.severity,
            value=judgement.effect,
            effect=judgement.effect,
            p_value=judgement.p_value,
            message=f"{judgement.text}, though no feature has drifted by itself",
            start_ns=window.start,
            end_ns=window.end,
            exemplars=window.exemplars,
        )
    }


def _exemplars(detector: Multivariate, judgement: MultivariateJudgement, rows: Rows) -> tuple[Exemplar, ...]:
    if not judgement.drifted or not rows.spans.any():
        return ()
    far = np.argsort(-detector.distances(rows.sample), kind="stable").tolist()
    some = [exemplar_of(rows, i) for i in far[: 20 * MAX_EXEMPLARS] if rows.spans[i]]
    return tuple(dict.fromkeys(some))[:MAX_EXEMPLARS]
