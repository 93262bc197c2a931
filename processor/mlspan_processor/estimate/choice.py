"""Stage 5: the estimator of one model: which rows can be used, which method is used, one figure with a band each.

In: a labelled reference once, then windows, whose labels are never looked at. Out: an Estimate for every metric of
the task. At most 20,000 reference rows are kept; they are what is stored, and the methods are fitted again when they
are read back, with the same seed and so with the same result. Nothing raises on odd data: one class only,
probabilities outside [0, 1], too few rows and the like give None and "undecidable, because …".
"""

import io
import json
import zipfile
from typing import Final, Self

import numpy as np

from mlspan_processor.estimate import expected, loss
from mlspan_processor.estimate.bands import Judged, Spread
from mlspan_processor.estimate.base import (
    MAX_ROWS,
    MIN_ROWS,
    MIN_WINDOW,
    Estimate,
    Floats,
    features_of,
    rows_of,
    undecidable,
    usable,
)
from mlspan_processor.estimate.classifier import ClassifierEstimates
from mlspan_processor.estimate.regression import RegressionEstimates
from mlspan_processor.sample import Sample, Task

METRICS: Final[dict[Task, tuple[str, ...]]] = {
    "binary": expected.METRICS,
    "multiclass": expected.METRICS,
    "multilabel": (),
    "regression": loss.METRICS,
}
_ENDS: Final = {
    "log_loss": (0.0, np.inf),
    "mae": (0.0, np.inf),
    "mse": (0.0, np.inf),
    "rmse": (0.0, np.inf),
    "r2": (-np.inf, 1.0),
}
_MISSING: Final = {
    "precision": "no row is predicted as the last class",
    "recall": "no row is likely to be of the last class",
    "f1": "no row is predicted as the last class or likely to be of it",
    "roc_auc": "all rows are of one class",
    "r2": "the labels would not vary",
}


class Estimator:
    """Estimated performance of one model.

    Attributes:
        reason: "" or why nothing can be estimated, "undecidable, because …".
        method: the method chosen for the model, a key of METHODS; "" where nothing can be estimated.
        errors: mean held-out error over made windows of each candidate.
    """

    def __init__(
        self, reference: Sample, fitted: ClassifierEstimates | RegressionEstimates | None, reason: str, seed: int
    ) -> None:
        self._reference = reference
        self._fitted = fitted
        self._seed = seed
        self.reason = f"undecidable, because {reason}" if reason else ""

    def __repr__(self) -> str:
        return f"Estimator({self.reason or self.method})"

    @property
    def method(self) -> str:
        """The method chosen for the model."""
        if isinstance(self._fitted, ClassifierEstimates):
            return self._fitted.method
        return "loss" if self._fitted else ""

    @property
    def errors(self) -> dict[str, float]:
        """Held-out errors of the candidates."""
        return dict(self._fitted.errors) if self._fitted else {}

    @classmethod
    def fit(cls, reference: Sample, *, seed: int = 0) -> Self:
        """Fit on the labelled rows of a reference, or on 20,000 of them; never raises on odd data."""
        used, reason = _usable(reference)
        used = used & _labelled(reference)
        kept = np.flatnonzero(used)
        if len(kept) > MAX_ROWS:
            kept = np.sort(np.random.default_rng(seed).choice(kept, MAX_ROWS, replace=False))
        bare = reference.take(kept)
        if not reason and len(kept) < MIN_ROWS:
            labels = int(_labelled(reference).sum())
            reason = f"the reference has {len(kept) if labels else 'no'} labelled rows, fewer than {MIN_ROWS}"
        if reason:
            return cls(bare, None, reason, seed)
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 heavy

        # The processor has one thread for all models; more of them would only wait for each other.
        with threadpool_limits(1):
            return cls._fit(bare, seed)

    @classmethod
    def _fit(cls, bare: Sample, seed: int) -> Self:
        everything = np.ones(len(bare), bool)
        if bare.task == "regression":
            rows = _predicted(bare, everything)
            return cls(bare, RegressionEstimates.fit(rows, bare.labels - rows.predictions, seed=seed), "", seed)
        labels_of = bare.labels.astype(np.int64)
        if len(np.unique(labels_of)) < 2:
            return cls(bare, None, "the reference has labels of one class only", seed)
        return cls(bare, ClassifierEstimates.fit(rows_of(bare, everything), labels_of, seed=seed), "", seed)

    def estimate(self, window: Sample) -> dict[str, Estimate]:
        """Every metric of the task for a window's rows; their labels are not looked at."""
        names = METRICS[window.task]
        if self._fitted is None:
            return undecidable(names, self.reason.removeprefix("undecidable, because "))
        if (window.task, window.classes, window.names) != (
            self._reference.task,
            self._reference.classes,
            self._reference.names,
        ):
            return undecidable(names, "the window's task, classes or features are not the reference's")
        used, reason = _usable(window)
        if not reason and used.sum() < MIN_WINDOW:
            reason = f"the window has {int(used.sum())} usable rows, fewer than {MIN_WINDOW}"
        if reason:
            return undecidable(names, reason)
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 heavy

        with threadpool_limits(1):
            if isinstance(self._fitted, ClassifierEstimates):
                judged, method = self._fitted.estimate(rows_of(window, used))
            else:
                judged, method = self._fitted.estimate(_predicted(window, used))
        rows, reference_rows = _effective(window.weights[used]), _effective(self._reference.weights)
        return _estimates(names, judged, self._fitted.spread, method, rows, reference_rows)

    def probabilities(self, window: Sample) -> Floats:
        """(n_rows, n_classes) how probable each class is for each row of a window, NaN for rows that cannot be
        used and where nothing can be estimated."""
        result = np.full((len(window), max(len(window.classes), 1)), np.nan)
        used, reason = _usable(window)
        if isinstance(self._fitted, ClassifierEstimates) and not reason:
            result[used] = self._fitted.probabilities(rows_of(window, used))[0]
        return result

    def to_bytes(self) -> bytes:
        """The kept reference rows, as a compressed npz without pickled objects."""
        one = self._reference
        about = {
            "version": 1,
            "task": one.task,
            "names": one.names,
            "types": one.types,
            "classes": one.classes,
            "reason": self.reason.removeprefix("undecidable, because "),
            "fitted": self._fitted is not None,
            "seed": self._seed,
        }
        arrays = {
            "cells": one.cells,
            "predictions": one.predictions,
            "labels": one.labels,
            "weights": one.weights,
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        }
        if one.scores is not None:
            arrays["scores"] = one.scores
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read back and fit again; raises ValueError for bytes that `to_bytes` did not write."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                sample = Sample(
                    task=about["task"],
                    names=tuple(about["names"]),
                    types=tuple(about["types"]),
                    cells=arrays["cells"],
                    classes=tuple(about["classes"]),
                    predictions=arrays["predictions"],
                    labels=arrays["labels"],
                    scores=arrays.get("scores"),
                    weights=arrays["weights"],
                )
        except (KeyError, OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError("failed to read an estimator: not the bytes of one") from error
        if not about["fitted"]:
            return cls(sample, None, about["reason"], about["seed"])
        return cls.fit(sample, seed=about["seed"])


def _usable(sample: Sample) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], str]:
    nothing = np.zeros(len(sample), bool)
    if not len(sample):
        return nothing, "there are no rows"
    if sample.task == "multilabel":
        return nothing, "estimates are made for binary, multiclass and regression models"
    if sample.task != "regression":
        return usable(sample)
    known = np.isfinite(sample.predictions) & (sample.weights > 0)
    return known, "" if known.any() else "no row has a prediction"


def _labelled(sample: Sample) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if sample.labels.ndim != 1:
        return np.zeros(len(sample), bool)
    if sample.task == "regression":
        return np.isfinite(sample.labels)
    return np.isin(sample.labels, np.arange(len(sample.classes)))


def _predicted(sample: Sample, used: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> loss.Predicted:
    part = sample.take(used)
    categorical = np.array([kind == "categorical" for kind in part.types], bool)
    return loss.Predicted(features_of(part), categorical, part.predictions, part.weights)


def _effective(weights: Floats) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def _estimates(
    names: tuple[str, ...], judged: Judged, spread: Spread, method: str, rows: float, reference_rows: float
) -> dict[str, Estimate]:
    lows, highs = spread.band(judged, rows, reference_rows)
    result = {}
    for name, value, low, high in zip(names, judged.values, lows, highs, strict=True):
        first, last = _ENDS.get(name, (0.0, 1.0))
        if not np.isfinite(value):
            why = _MISSING.get(name, "it cannot be computed")
            result[name] = Estimate(None, None, None, f"undecidable, because {why}", method)
        elif not np.isfinite(low):
            result[name] = Estimate(float(value), None, None, "", method)
        elif low <= first and high >= last:
            why = f"any value from {first:g} to {last:g} would be within its band"
            result[name] = Estimate(None, None, None, f"undecidable, because {why}", method)
        else:
            result[name] = Estimate(float(value), float(max(low, first)), float(min(high, last)), "", method)
    return result
