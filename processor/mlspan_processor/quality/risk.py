"""Stage 5: has the risk risen by more than a tolerance? A test that may be looked at after every label.

In: losses in [0, 1] of labelled rows (0/1 error, Brier score, absolute error over a scale), in batches, late and in any
order that does not depend on the losses: feed windows whose labels are mature, or labels as the predictions came. Out:
an e-value against "the mean loss never exceeded the limit"; an alarm once it reaches 4 / level. The limit is an
upper bound of the reference's risk (at 3/4 of the level: exact binomial for 0/1 errors, else Maurer & Pontil's
empirical Bernstein bound, COLT 2009) plus the tolerance. So without such a rise at most `level` of all streams ever
raise an alarm, however long they are and however often one looks.

The e-value is the capital of bets on rows: each multiplies it by 1 + λ · (loss - limit), a supermartingale under the
null (Waudby-Smith & Ramdas, J. R. Stat. Soc. B 86, 2024; Podkopaev & Ramdas, arXiv 2110.06177; Timans et al., arXiv
2506.16416). A mixture over five λ needs no estimate of the rise; a mixture over the time of the change keeps a long
good past from using the capital up: every 200 rows a share 1 / (k · ln² k) of it enters the game (Shin, Ramdas &
Rinaldo, arXiv 2203.03532). Rows that stand for several bet in proportion. Errors that come in runs tell less than they
are many: each row's factor is taken to the power 1 / d, where d is what the rows before it say of runs (runs.py; with d
>= 1 that is still a supermartingale for independent rows, and for normal sums with a design effect of d it is one
again). What it does not cover: runs of which the reference holds but a few dozen. Memory: 1 kB.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from mlspan_processor.quality.bands import Z95, share
from mlspan_processor.quality.base import Labelled
from mlspan_processor.quality.realised import labelled
from mlspan_processor.quality.runs import Runs
from mlspan_processor.sample import Sample

Floats = NDArray[np.float64]
LOSSES: Final = ("error", "brier", "absolute")
MIN_REFERENCE: Final = 100
"""Labelled reference rows below which there is no verdict."""
_BLOCK: Final = 200
_OF_REFERENCE: Final = 0.75  # share of the level spent on the reference's own uncertainty
_RISES: Final = np.array([0.05, 0.1, 0.2, 0.4, 0.8])  # in standard deviations of the loss
_STARTS: Final = 2.109742801  # Σ 1 / (k ln² k) from 2 on
_MOST: Final = 1e100
_RECENT: Final = 500.0
_STAKE: Final = 0.9
_STATE: Final = (
    "loss", "scale", "limit", "level", "variance", "reason", "rows", "weight", "cash", "blocks", "in_block", "alarm",
    "recent_rows", "recent_sum", "recent_squares",
)  # fmt: skip


class RiskVerdict(NamedTuple):
    """Where the test stands.

    Attributes:
        alarm: whether the risk has risen by more than the tolerance; it stays True until `reset`.
        e_value: evidence against "it has not".
        risk: mean loss of about the last 500 rows, times `scale`; low, high: its 95 % band.
        limit: upper bound of the reference's risk plus the tolerance, times `scale`.
        labels: labelled rows seen.
        reason: "" or why there is no verdict, "undecidable, because …".
    """

    alarm: bool
    e_value: float
    risk: float | None
    low: float | None
    high: float | None
    limit: float | None
    labels: int
    reason: str = ""


class RiskTest:
    """Anytime-valid test of a rise in risk.

    Attributes:
        loss: one of LOSSES; `scale` what an absolute error is divided by, 1 for the others.
        limit: the mean loss that the null allows.
        level: share of streams without a rise that may ever raise an alarm.
    """

    def __init__(
        self, limit: float, variance: float, *, level: float = 0.01, loss: str = "error", scale: float = 1.0
    ) -> None:
        """`limit` and `variance` of the loss; better made by of_reference, of_sample or of_share."""
        if loss not in LOSSES:
            raise ValueError(f'"{loss}" is no loss; valid: {", ".join(LOSSES)}')
        if not 0 < level < 1:
            raise ValueError(f"level {level} must lie between 0 and 1")
        self.loss, self.scale, self.level = loss, scale, level
        self.limit = float(limit)
        self.variance = max(float(variance), 1e-6)
        self.reason = (
            "" if self.limit < 1 else "undecidable, because no risk can exceed the reference's by the tolerance"
        )
        self.rows, self.weight = 0, 0.0
        self.runs = Runs()
        self.recent_rows = self.recent_sum = self.recent_squares = 0.0
        self.reset()

    def __repr__(self) -> str:
        return f"RiskTest(limit={self.limit:.4g}, level={self.level:g}, loss={self.loss!r})"

    @classmethod
    def of_reference(
        cls,
        losses: Floats,
        weights: Floats | None = None,
        *,
        tolerance: float = 0.02,
        level: float = 0.01,
        loss: str = "error",
        scale: float = 1.0,
    ) -> Self:
        """A test against the reference rows' losses (n,) in [0, 1]; NaN are left out, `tolerance` is in their unit."""
        used = np.isfinite(losses)
        values = np.clip(losses[used], 0.0, 1.0)
        w = np.ones(len(values)) if weights is None else weights[used]
        n = float(w.sum()) ** 2 / float(w @ w) if len(w) else 0.0
        mean = float(np.average(values, weights=w)) if len(w) else 0.0
        variance = float(np.average((values - mean) ** 2, weights=w)) if len(w) else 0.0
        whole = bool(np.isin(values, (0.0, 1.0)).all())
        runs = Runs()
        runs.add(values)
        upper = _upper(mean, variance, n / runs.design_effect, level * _OF_REFERENCE, whole)
        test = cls(upper + tolerance, variance, level=level, loss=loss, scale=scale)
        test.runs = runs
        if len(values) < MIN_REFERENCE:
            test.reason = f"undecidable, because the reference has only {len(values)} labelled rows"
        return test

    @classmethod
    def of_sample(
        cls, reference: Sample, *, loss: str = "", tolerance: float | None = None, level: float = 0.01
    ) -> Self:
        """A test against a labelled reference.

        Args:
            reference: rows with labels.
            loss: one of LOSSES; "" is "absolute" for regression, else "error" (of multilabel the share of wrong
                outputs).
            tolerance: rise that is let pass, 0.02 unless given; of absolute errors relative to the reference's mean
                one, 0.1 unless given.
            level: as above.
        """
        loss = loss or ("absolute" if reference.task == "regression" else "error")
        batch = labelled(reference)
        scale = 1.0
        if loss == "absolute":
            sizes = np.abs(batch.predictions - batch.labels)
            sizes = sizes[np.isfinite(sizes)]
            scale = float(np.quantile(sizes, 0.999)) * 2 if len(sizes) else 1.0
            scale = scale if scale > 0 else 1.0
            mean = float(sizes.mean()) / scale if len(sizes) else 0.0
            tolerance = max((0.1 if tolerance is None else tolerance) * mean, 1e-6)
        values = losses_of(batch, loss, scale, len(reference.classes) or 2)
        rise = 0.02 if tolerance is None else tolerance
        return cls.of_reference(values, batch.weights, tolerance=rise, level=level, loss=loss, scale=scale)

    @classmethod
    def of_share(cls, share: float, rows: float, *, tolerance: float = 0.02, level: float = 0.01) -> Self:
        """A test of the error rate against a reference of which only its error rate and its rows are known."""
        test = cls(
            _upper(share, share * (1 - share), rows, level * _OF_REFERENCE, True) + tolerance,
            share * (1 - share),
            level=level,
        )
        if rows < MIN_REFERENCE:
            test.reason = f"undecidable, because the reference has only {rows:.0f} labelled rows"
        return test

    def update_batch(self, batch: Labelled, n_classes: int = 2) -> RiskVerdict:
        """Add labelled rows of the kind that the test is for."""
        return self.update(losses_of(batch, self.loss, self.scale, n_classes), batch.weights)

    def update(self, losses: Floats, weights: Floats | None = None) -> RiskVerdict:
        """Add rows' losses (n,), clipped to [0, 1]; NaN and rows without weight are left out."""
        w = np.ones(len(losses)) if weights is None else weights
        used = np.isfinite(losses) & np.isfinite(w) & (w > 0)
        values, w = np.clip(losses[used], 0.0, 1.0), w[used]
        if not len(values):
            return self.verdict()
        known = self.weight / self.rows if self.rows else float(w.mean())
        stakes = w / known
        start = 0
        while start < len(values):
            stop = min(len(values), start + _BLOCK - self.in_block)
            self._bet(values[start:stop], stakes[start:stop])
            start = stop
        self.rows += len(values)
        self.weight += float(w.sum())
        return self.verdict()

    def verdict(self) -> RiskVerdict:
        """Where the test stands."""
        risk = low = high = None
        if self.recent_rows > 0:
            mean = self.recent_sum / self.recent_rows
            variance = max(0.0, self.recent_squares / self.recent_rows - mean**2)
            rows = self.recent_rows / self.runs.design_effect
            band = share(mean, rows, variance / rows)(Z95) or (mean, mean)
            risk, low, high = mean * self.scale, band[0] * self.scale, band[1] * self.scale
        limit = None if self.reason else self.limit * self.scale
        return RiskVerdict(self.alarm, self.e_value, risk, low, high, limit, self.rows, self.reason)

    @property
    def e_value(self) -> float:
        """Evidence against the null; 1 at the start."""
        return float(self.wealth.sum() + self.cash)

    def reset(self) -> None:
        """Begin anew against the same reference."""
        self.wealth = np.zeros(len(_RISES))
        self.cash = 1.0
        self.blocks = self.in_block = 0
        self.alarm = False

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        state = {name: getattr(self, name) for name in _STATE}
        return {**state, "wealth": self.wealth.tolist(), "runs": self.runs.to_dict()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """The test that `to_dict` described."""
        test = cls(state["limit"], state["variance"], level=state["level"], loss=state["loss"], scale=state["scale"])
        for name in _STATE:
            setattr(test, name, state[name])
        test.wealth = np.array(state["wealth"], np.float64)
        test.runs = Runs.from_dict(state["runs"]) if "runs" in state else Runs()
        return test

    def _bet(self, losses: Floats, stakes: Floats) -> None:
        """Rows of one block."""
        if self.in_block == 0:
            part = 1 / (_STARTS * (self.blocks + 2) * math.log(self.blocks + 2) ** 2)
            part = min(part, self.cash)
            self.cash -= part
            self.wealth = self.wealth + part / len(_RISES)
            self.blocks += 1
        self.in_block = (self.in_block + len(losses)) % _BLOCK
        fade = math.exp(-len(losses) / _RECENT)
        self.recent_rows = self.recent_rows * fade + len(losses)
        self.recent_sum = self.recent_sum * fade + float(losses.sum())
        self.recent_squares = self.recent_squares * fade + float((losses**2).sum())
        effect = self.runs.cautious
        self.runs.add(losses)
        if self.reason or self.alarm:
            return
        rises = _RISES * math.sqrt(self.variance)
        bets = np.minimum(rises / (self.variance + rises**2), _STAKE / self.limit)
        # No row may lose more than is there.
        sizes = np.minimum(bets[:, None] * stakes, _STAKE / self.limit)
        gains = np.log1p(sizes * (losses - self.limit)).sum(axis=1) / effect
        self.wealth = np.minimum(self.wealth * np.exp(np.clip(gains, -700.0, 300.0)), _MOST)
        self.alarm = self.e_value >= 1 / (self.level * (1 - _OF_REFERENCE))


def losses_of(batch: Labelled, loss: str, scale: float = 1.0, n_classes: int = 2) -> Floats:
    """(n,) losses in [0, 1], NaN where there is none.

    Args:
        batch: labelled rows.
        loss: one of LOSSES.
        scale: the absolute error that counts 1.
        n_classes: of a classifier.
    """
    labels, said = batch.labels, batch.predictions
    if loss == "absolute":
        return np.minimum(np.abs(said - labels) / scale, 1.0)
    if loss == "error":
        wrong = np.where(np.isfinite(labels) & np.isfinite(said), (labels != said).astype(np.float64), np.nan)
        return wrong if wrong.ndim == 1 else np.asarray(wrong.mean(axis=1))
    if batch.scores is None or not batch.scores.shape[1]:
        return np.full(len(labels), np.nan)
    p = batch.scores.astype(np.float64)
    if labels.ndim == 2:
        squares = ((p - labels) ** 2).mean(axis=1)
    elif p.shape[1] == 1:
        squares = (p[:, 0] - (labels == n_classes - 1)) ** 2
    else:
        squares = ((p - (labels[:, None] == np.arange(p.shape[1]))) ** 2).sum(axis=1) / 2
    proper = ((p >= -1e-6) & (p <= 1 + 1e-6)).all(axis=1)
    known = np.asarray(np.isfinite(labels) if labels.ndim == 1 else np.isfinite(labels).all(axis=1))
    return np.where(proper & known, squares, np.nan)


def _upper(mean: float, variance: float, n: float, level: float, whole: bool) -> float:
    """An upper bound of a mean of n losses in [0, 1] that fails with probability `level`."""
    if n < 2:
        return 1.0
    if whole:
        hits = mean * n
        return float(betaincinv(hits + 1, max(n - hits, 1e-9), 1 - level)) if hits < n else 1.0
    spread = math.log(2 / level)
    sample = variance * n / (n - 1)
    return min(1.0, mean + math.sqrt(2 * sample * spread / n) + 7 * spread / (3 * (n - 1)))
