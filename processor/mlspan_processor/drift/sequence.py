"""Stage 5: alarms over time, held to a stated average run length.

In: the Judgement of one window after the other. Out: a Look: whether there is an alarm now, how much evidence, and of
which features. A rule that holds its level in every window still raises a false alarm in every hundredth of them;
here one is due in `run_length` windows (10,000: with one window an hour, a year) or more. Half of that budget goes to a
window that is enough by itself (adjusted p <= 1 / (2 run_length), valid whatever windows have in common), half to what
adds up: each feature's p-values become e-values, and the Shiryaev-Roberts sum of their products alarms when its mean
over features reaches 2 run_length. Products reach back only as far as the windows together have a quarter of the
reference's rows: beyond, they would accumulate the reference's own noise. An alarm also needs the second gate in the
present window. Only windows that do not overlap the last one are looks; after an alarm evidence starts anew.
Memory: at most 32 numbers a feature. Source: Shin, Ramdas & Rinaldo, E-detectors, arXiv 2203.03532; Vovk & Wang,
E-values, Ann. Stat. 49, 2021 (calibrator); Wang & Ramdas, J. R. Stat. Soc. B 84, 2022 (e-BH: which features).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.drift.base import Floats
from mlspan_processor.drift.judgement import Judgement
from mlspan_processor.drift.multivariate import MultivariateJudgement

RUN_LENGTH: Final = 10_000.0
MAX_MEMORY: Final = 32
MULTIVARIATE: Final = "multivariate"
_LARGEST: Final = 1e30


@dataclass(frozen=True, slots=True)
class Look:
    """What one window adds.

    Attributes:
        alarm: enough evidence, and a shift that matters.
        evidence: the detector's value over its threshold: 1 is enough.
        features: of an alarm, the strongest first; "multivariate" for all together.
        counted: False for a window that overlaps the last one, or that decides nothing.
    """

    alarm: bool
    evidence: float
    features: tuple[str, ...]
    counted: bool


class Sequence:
    """One model version's windows, in time."""

    def __init__(self, run_length: float = RUN_LENGTH) -> None:
        """run_length: windows without drift until a false alarm, on average at least.

        Raises:
            ValueError: a run length below 1.
        """
        if not run_length >= 1:
            raise ValueError(f"run_length: {run_length}, must be at least 1")
        self.run_length = float(run_length)
        self._names: tuple[str, ...] = ()
        self._span: tuple[int, int] | None = None
        self._recent: list[Floats] = []
        self._evidence = 0.0

    def look(
        self, judgement: Judgement, start_ns: int, end_ns: int, multivariate: MultivariateJudgement | None = None
    ) -> Look:
        """Take a window [start_ns, end_ns) in.

        Args:
            judgement: of the window; other features than before (a new reference) start anew.
            start_ns, end_ns: event time.
            multivariate: of the same window, as one more feature.
        """
        names = judgement.names
        p, adjusted = judgement.p_value, judgement.p_adjusted
        material = judgement.material
        if multivariate is not None and multivariate.p_value is not None:
            p, adjusted = np.append(p, multivariate.p_value), np.append(adjusted, multivariate.p_value)
            material = np.append(material, multivariate.material)
            names = (*names, MULTIVARIATE)
        if self._span is not None and start_ns < self._span[1] and end_ns > self._span[0]:
            return Look(False, self._evidence, (), False)
        if not np.isfinite(p).any():
            return Look(False, self._evidence, (), False)
        if names != self._names:
            self._names, self._recent = names, []
        self._span = (start_ns, end_ns)
        self._recent.append(e_values(p))
        del self._recent[: -_memory(judgement)]
        sums = self._summed()
        threshold = 2 * self.run_length
        self._evidence = float(sums.mean()) / threshold
        at_once = np.nan_to_num(adjusted, nan=1.0) <= 1 / threshold
        together = _selected(sums, threshold)
        if self._evidence >= 1 and not together.any():
            together[int(np.argmax(sums))] = True
        alarming = (at_once | (together & (self._evidence >= 1))) & material
        order = np.argsort(np.nan_to_num(p, nan=1.0), kind="stable")
        features = tuple(names[j] for j in order.tolist() if alarming[j])
        evidence = max(self._evidence, 1.0) if features else self._evidence
        if features:
            self._recent, self._evidence = [], 0.0
        return Look(bool(features), evidence, features, True)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "run_length": self.run_length,
            "names": list(self._names),
            "span": None if self._span is None else list(self._span),
            "recent": [one.tolist() for one in self._recent],
            "evidence": self._evidence,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Sequence":
        """What `to_dict` gave."""
        sequence = cls(state["run_length"])
        sequence._names = tuple(state["names"])
        sequence._span = None if state["span"] is None else (int(state["span"][0]), int(state["span"][1]))
        sequence._recent = [np.asarray(one, np.float64) for one in state["recent"]]
        sequence._evidence = float(state["evidence"])
        return sequence

    def _summed(self) -> Floats:
        """Σ over starts of the products since (n_features,)."""
        sums = np.zeros(len(self._names))
        for one in self._recent:
            sums = np.minimum(one * (sums + 1), _LARGEST)
        return sums


def e_values(p: Floats) -> Floats:
    """E-values of p-values: ∫ κ p^(κ-1) dκ over (0, 1), NaN gives 1 (no evidence either way).

    >>> float(e_values(np.array([1e-4]))[0]).__round__(1)
    117.8
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        safe = np.clip(np.nan_to_num(p, nan=1.0), 1e-40, 1.0)
        logs = np.log(safe)
        values = (1 - safe + safe * logs) / (safe * logs**2)
    # Near 1 the quotient is 0 / 0; its limit is 1/2.
    values = np.where(safe > 1 - 1e-4, 0.5, values)
    return np.where(np.isnan(p), 1.0, np.minimum(values, _LARGEST))


def _memory(judgement: Judgement) -> int:
    n, m = np.nanmedian(judgement.rows), np.nanmedian(judgement.reference_rows)
    return int(np.clip(m / (4 * n), 1, MAX_MEMORY)) if n > 0 else 1


def _selected(sums: Floats, threshold: float) -> NDArray[np.bool_]:
    """e-BH: the largest k with k sums of at least n threshold / k."""
    order = np.argsort(-sums, kind="stable")
    ranks = np.arange(1, len(sums) + 1)
    enough = np.flatnonzero(sums[order] * ranks >= len(sums) * threshold)
    selected = np.zeros(len(sums), bool)
    if len(enough):
        selected[order[: enough[-1] + 1]] = True
    return selected
