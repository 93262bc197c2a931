"""Stage 6: all series of a model at once: moments that are unlike the others though no single series is.

An isolation forest (forest.py) over the last `SIZE` moments, refitted every `REFIT`: how easily cuts set a moment
apart, and how far off it lies. How unlike is unlike is judged as in the other detectors: by each score's own past
(rarity), against a threshold that falls with the square root of what was seen. Randomness comes from the seed and the
number of moments seen: the same data give the same verdicts, and trees are rebuilt from the remembered moments after a
restart rather than stored.

A series that is missing counts as at its median; moments with fewer than half of the known series are undecidable; the
first to come are watched where there are more than `MAX_SERIES`, the others counted in `dropped`.
Memory: at most MAX_SERIES × (SIZE + REFIT) numbers and the forest.
"""

import math
from array import array
from typing import ClassVar, Final, Self

import numpy as np

from mlspan_processor.anomaly.base import Clock, State, Values, Verdict, packed, undecidable, unpacked, usable
from mlspan_processor.anomaly.forest import Floats, Forest
from mlspan_processor.anomaly.peaks import MEMORY
from mlspan_processor.anomaly.rarity import WARM_UP, Rarity
from mlspan_processor.anomaly.residuals import CERTAIN

SIZE: Final = 512
REFIT: Final = 64
# Moments before the first fit.
FIRST: Final = 100
MAX_SERIES: Final = 64
BAR: Final = 0.38
# Least scales of isolation and distance.
FLOORS: Final = (1e-3, 0.05)
NAMED: Final = 3


class Joint:
    """Isolation forest over the joint series."""

    name: ClassVar[str] = "joint"

    def __init__(self, *, bar: float = BAR, seed: int = 0) -> None:
        self.bar, self.seed = bar, seed
        self.names: list[str] = []
        self.learnt = 0
        self.dropped = 0
        self._rows = np.empty((0, 0))
        self._since = 0
        self._clock = Clock()
        self._past = (Rarity(SIZE), Rarity(SIZE))
        self._forest: Forest | None = None

    def __repr__(self) -> str:
        return f"Joint({len(self.names)} series)"

    def update(self, time_ns: int, values: Values) -> Verdict:
        """Judge the values of one moment, then learn from them."""
        threshold = self.bar / math.sqrt(min(max(self.learnt, WARM_UP), MEMORY))
        known = {name: value for name, value in values.items() if value is not None and usable(value)}
        if not known:
            return undecidable("there is no value", threshold)
        if not self._clock.admits(time_ns):
            return undecidable("its time is not later than the last one's", threshold)
        self._add(known)
        row = np.array([known.get(name, math.nan) for name in self.names])
        if 2 * np.isfinite(row).sum() < len(row):
            return undecidable(f"only {np.isfinite(row).sum()} of {len(row)} series have a value", threshold)
        verdict = self._judge(row, threshold)
        self.learnt += 1
        self._rows = np.vstack([self._rows, row])[-(SIZE + REFIT) :]
        self._since += 1
        if len(self._rows) >= FIRST and (self._forest is None or self._since >= REFIT):
            self._since = 0
            self._forest = self._fitted(self._rows)
        return verdict

    def _add(self, known: dict[str, float]) -> None:
        """Columns for series that are new; they change the forest at its next fit."""
        new = sorted(set(known) - set(self.names))
        fits = new[: max(MAX_SERIES - len(self.names), 0)]
        self.dropped += len(new) - len(fits)
        if fits:
            self.names += fits
            self._rows = np.hstack([self._rows, np.full((len(self._rows), len(fits)), np.nan)])
            if not len(self._rows):
                self._rows = np.empty((0, len(self.names)))

    def _judge(self, row: Floats, threshold: float) -> Verdict:
        forest = self._forest
        if forest is None:
            return undecidable(f"{len(self._rows)} of {FIRST} moments are known", threshold)
        row = row[: len(forest.middle)]
        scores = forest.score(row)
        verdict = undecidable(f"{len(self._past[0].recent)} of {WARM_UP} scores are known", threshold)
        if self._past[0].ready:
            told = [
                past.probability(score, floor, threshold / 2) if score > past.recent.quantile(0.5) else 1.0
                for past, score, floor in zip(self._past, scores, FLOORS, strict=True)
            ]
            rarer = int(told[1] < told[0])
            p = min(1.0, 2 * told[rarer])
            past, score = self._past[rarer], scores[rarer]
            high = past.limits(threshold / 2, FLOORS[rarer])[1]
            usual = past.recent.quantile(0.5)
            verdict = Verdict(
                score=p,
                threshold=threshold,
                is_anomaly=p <= threshold,
                reason=self._reason(forest.standardised(row)) if p <= threshold else "",
                value=score,
                expected=usual,
                high=high if math.isfinite(high) else None,
                effect=score - usual,
                certain=p * CERTAIN <= threshold,
            )
        for past, score in zip(self._past, scores, strict=True):
            past.push(score)
        return verdict

    def _reason(self, z: Floats) -> str:
        most = np.argsort(-np.abs(z), kind="stable")[:NAMED]
        named = ", ".join(f"{self.names[i]} ({z[i]:+.1f} sd)" for i in most)
        return f"the series are together as they never were; furthest off: {named}"

    def _fitted(self, rows: Floats) -> Forest:
        """The forest of the remembered moments less those since the last fit."""
        rng = np.random.default_rng([self.seed, self.learnt - self._since])
        return Forest.fit(rows[: len(rows) - self._since][-SIZE:], rng)

    def to_dict(self) -> State:
        """Everything, as JSON takes it."""
        return {
            "name": self.name,
            "bar": self.bar,
            "seed": self.seed,
            "names": self.names,
            "learnt": self.learnt,
            "dropped": self.dropped,
            "rows": packed(array("d", self._rows.tobytes())),
            "since": self._since,
            "fitted": None if self._forest is None else len(self._forest.middle),
            "clock": self._clock.to_dict(),
            "past": [past.to_dict() for past in self._past],
        }

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The detector that `to_dict` described."""
        joint = cls(bar=state["bar"], seed=state["seed"])
        joint.names, joint.learnt, joint.dropped = list(state["names"]), state["learnt"], state["dropped"]
        joint._rows = np.array(unpacked(state["rows"])).reshape(-1, len(joint.names)) if joint.names else joint._rows
        joint._since = state["since"]
        joint._clock = Clock.from_dict(state["clock"])
        isolation, distance = (Rarity.from_dict(past) for past in state["past"])
        joint._past = isolation, distance
        if state["fitted"] is not None:
            joint._forest = joint._fitted(joint._rows[:, : state["fitted"]])
        return joint
