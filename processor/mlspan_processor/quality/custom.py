"""Stage 5: the user's own metrics: Python functions by entry point (group mlspan_metric), on labelled rows.

A function has the signature `(labels, predictions, scores, weights) -> float`: labels and predictions (n,) float64
class indices or numbers ((n, n_outputs) of 0 and 1 for multilabel), scores (n, width) float64 or None, weights (n,)
float64. It is called with copies that it may keep or change, never with fewer rows than one, on the thread that asks.
What it raises is caught, named in the figure's reason, and counted; a value that is no finite number is a reason as
well.

    [project.entry-points.mlspan_metric]
    profit = "shop.metrics:profit"

Bands come from 200 bootstrap draws of rows where a function is quick (20 ms for all rows). A stream keeps `Rows`: a
uniform sample of at most 5,000 labelled rows of a pane, the ones with the smallest random numbers, so that merged panes
give the sample of one pass. Memory: 8 bytes a value, 160 kB for two classes.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.quality.base import Labelled
from mlspan_processor.quality.realised import Realised, labelled
from mlspan_processor.sample import Sample

GROUP: Final = "mlspan_metric"
MAX_ROWS: Final = 5_000
Metric = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]], float]
_DRAWS: Final = 200
_QUICK_SECONDS: Final = 0.02
_log = logging.getLogger(__name__)


class CustomMetrics:
    """Metrics by name.

    Attributes:
        functions: by name.
        failures: how often each failed.
        broken: why those that cannot be loaded cannot, by name.
    """

    def __init__(self, functions: dict[str, Metric]) -> None:
        self.functions = functions
        self.failures: Counter[str] = Counter()
        self.broken: dict[str, str] = {}

    @classmethod
    def installed(cls) -> "CustomMetrics":
        """Those that installed distributions declare; one that cannot be loaded is logged, and has a reason."""
        metrics = cls({})
        for point in entry_points(group=GROUP):
            try:
                function = point.load()
                if not callable(function):
                    raise TypeError(f'"{point.value}" is no function')
                metrics.functions[point.name] = function
            except Exception as error:  # noqa: BLE001 user code
                metrics.broken[point.name] = f"undecidable, because it cannot be loaded: {_text(error)}"
                _log.warning('metric "%s" of %s cannot be loaded: %s', point.name, point.value, error)
        return metrics

    def figures(self, batch: Labelled, *, bands: bool = True) -> dict[str, Realised]:
        """Every metric of these rows; rows without label or prediction are left out."""
        rows = _complete(batch)
        result = {name: Realised(None, None, None, why) for name, why in self.broken.items()}
        for name, function in self.functions.items():
            if not len(rows.labels):
                result[name] = Realised(None, None, None, "no labelled predictions")
                continue
            started = time.monotonic()
            value, reason = self._call(name, function, rows)
            quick = time.monotonic() - started < _QUICK_SECONDS
            band = self._band(function, rows) if bands and quick and value is not None else None
            low, high = band or (None, None)
            result[name] = Realised(value, low, high, reason, len(rows.labels))
        return result

    def of_sample(self, sample: Sample) -> dict[str, Realised]:
        """Every metric of a sample."""
        return self.figures(labelled(sample))

    def _call(self, name: str, function: Metric, rows: Labelled) -> tuple[float | None, str]:
        try:
            value = _called(function, rows)
        except Exception as error:  # noqa: BLE001 user code
            if not self.failures[name]:
                _log.warning('metric "%s" failed: %s; further failures are only counted', name, _text(error))
            self.failures[name] += 1
            return None, f'undecidable, because "{name}" raised {_text(error)}'
        if not math.isfinite(value):
            self.failures[name] += 1
            return None, f'undecidable, because "{name}" returned {value}'
        return value, ""

    def _band(self, function: Metric, rows: Labelled) -> tuple[float, float] | None:
        rng = np.random.default_rng(0)
        n = len(rows.labels)
        values = []
        for _ in range(_DRAWS):
            try:
                values.append(_called(function, _taken(rows, rng.integers(0, n, n))))
            except Exception:  # noqa: BLE001, S112 a draw may lack a class: it says nothing about the band
                continue
        finite = np.array(values)[np.isfinite(values)] if values else np.zeros(0)
        if len(finite) < _DRAWS // 2:
            return None
        low, high = np.quantile(finite, [0.025, 0.975])
        return float(low), float(high)


class Rows:
    """A bounded uniform sample of labelled rows, mergeable."""

    def __init__(self, seed: int | None = None, most: int = MAX_ROWS) -> None:
        """`seed` for the same sample again; parts that will merge must have different ones, as None gives them."""
        self.most = most
        self.seen = 0
        self._random = np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self._batch: Labelled | None = None

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        if self._batch is None:
            return 64
        scores = 0 if self._batch.scores is None else self._batch.scores.nbytes
        return self._keys.nbytes + self._batch.labels.nbytes * 2 + self._batch.weights.nbytes + scores + 64

    def update(self, batch: Labelled) -> None:
        """Add labelled rows."""
        rows = _complete(batch)
        self.seen += len(rows.labels)
        self._add(self._random.random(len(rows.labels)), rows)

    def merge(self, other: "Rows") -> None:
        """Add another's rows."""
        self.seen += other.seen
        if other._batch is not None:
            self._add(other._keys, other._batch)

    def batch(self) -> Labelled | None:
        """The rows, with weights that make up for those left out; None without any."""
        if self._batch is None:
            return None
        return self._batch._replace(weights=self._batch.weights * (self.seen / max(1, len(self._keys))))

    def snapshot(self) -> dict[str, Any]:
        """Everything, as plain values and arrays."""
        batch = None if self._batch is None else list(self._batch)
        return {"most": self.most, "seen": self.seen, "keys": self._keys, "batch": batch}

    def restore(self, fields: Any) -> None:
        """Take what `snapshot` gave."""
        self.most, self.seen = int(fields["most"]), int(fields["seen"])
        self._keys = np.array(fields["keys"])
        self._batch = None if fields["batch"] is None else Labelled(*fields["batch"])
        # Numbers that come now must not repeat those that were drawn before.
        self._random = np.random.default_rng([self.seen, len(self._keys)])

    def _add(self, keys: NDArray[np.float64], rows: Labelled) -> None:
        mine = self._batch
        if mine is not None and len(mine.labels):
            scores = None
            if mine.scores is not None and rows.scores is not None and mine.scores.shape[1:] == rows.scores.shape[1:]:
                scores = np.concatenate([mine.scores, rows.scores])
            rows = Labelled(
                np.concatenate([mine.labels, rows.labels]),
                np.concatenate([mine.predictions, rows.predictions]),
                scores,
                rows.score_kind,
                np.concatenate([mine.weights, rows.weights]),
                rows.epsilon,
            )
            keys = np.concatenate([self._keys, keys])
        if len(keys) > self.most:
            kept = np.sort(np.argpartition(keys, self.most)[: self.most])
            keys, rows = keys[kept], _taken(rows, kept)
        self._keys, self._batch = keys, rows


def _called(function: Metric, rows: Labelled) -> float:
    scores = None if rows.scores is None else rows.scores.astype(np.float64)
    return float(function(rows.labels.copy(), rows.predictions.copy(), scores, rows.weights.copy()))


def _complete(batch: Labelled) -> Labelled:
    known = np.isfinite(batch.labels) & np.isfinite(batch.predictions)
    known = (known if known.ndim == 1 else known.all(axis=1)) & (batch.weights > 0)
    return batch if known.all() else _taken(batch, np.flatnonzero(known))


def _taken(batch: Labelled, rows: NDArray[np.intp]) -> Labelled:
    scores = None if batch.scores is None else batch.scores[rows]
    labels, predictions = batch.labels[rows], batch.predictions[rows]
    return Labelled(labels, predictions, scores, batch.score_kind, batch.weights[rows], batch.epsilon)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
