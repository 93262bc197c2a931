"""Stage 2, capture: the classes of a fitted model, and how to find an answer among them.

Reads the model's `classes_`, writes int32 indices into the list of class texts (``ml.prediction.classes``). Memory: one
text and one dictionary entry per class, at most 1,024 classes; models with more have none as far as mlspan is
concerned.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.columns import text_of
from mlspan.identity import delegates, read

I4: Final = np.dtype("<i4")

MAX_CLASSES: Final = 1_024
MAX_OUTPUTS: Final = 64
"""Columns of predictions and scores that a span carries."""
_FEW: Final = 8
_OUTLIER_CLASSES: Final = np.array([-1, 1])
_THRESHOLDED: Final = "BaseThresholdClassifier"
_TRUTHS: Final = {"False": "0", "True": "1"}
_INDICATORS: Final = frozenset({"0", "1", "0.0", "1.0", "False", "True"})


class Classes:
    """The classes of one fitted model; made once per model.

    A model of several outputs with classes of their own (a list of arrays) has the sorted union of their texts.

    Attributes:
        labels: the classes' texts, in the order of the probability columns.
        outputs: outputs of the model.
        positions: for each of several outputs, the index of each of its classes in `labels`; else empty.
        names: of the outputs of a multilabel model, each of which holds or does not; else empty.
        are_compared: raw scores are of pairs of classes, not of classes.
        threshold: of two classes, the column of one and the probability from which it is the answer; None: the
            likeliest class is.
    """

    __slots__ = ("_lookup", "_sorted", "are_compared", "labels", "names", "outputs", "positions", "single", "threshold")

    def __init__(self, values: NDArray[Any] | list[NDArray[Any]]) -> None:
        self._sorted: NDArray[Any] | None = None
        self.positions: tuple[NDArray[np.int32], ...] = ()
        self.names: tuple[str, ...] = ()
        self.are_compared = False
        self.threshold: tuple[int, float] | None = None
        if isinstance(values, list):
            texts = [[text_of(value) for value in part.tolist()] for part in values]
            self.labels = tuple(sorted({text for part in texts for text in part}))
            at = {text: index for index, text in enumerate(self.labels)}
            self.positions = tuple(np.array([at[text] for text in part], I4) for part in texts)
            self.outputs = len(values)
            self._lookup = {value: at[text_of(value)] for part in values for value in part.tolist()}
        else:
            listed = values.tolist()
            self.labels = tuple(map(text_of, listed))
            self.outputs = 1
            self._lookup = {value: index for index, value in enumerate(listed)}
            if values.dtype.kind in "iuf" and bool((values[1:] > values[:-1]).all()):
                self._sorted = values
        # The predictions of one row with one output, ready to be sent: index -1 is the last.
        self.single = tuple(np.array([[index]], I4) for index in (*range(len(self.labels)), -1))

    @classmethod
    def of_outputs(cls, count: int, names: Sequence[str] | None) -> "Classes":
        """Of a multilabel model that answers 0 and 1 for each of so many outputs: no classes, but names."""
        made = cls(np.zeros(0))
        made.outputs = count
        made.name_outputs(names)
        return made

    @classmethod
    def named(cls, names: Sequence[str]) -> "Classes":
        """Of a model that does not know its classes: it answers with their names, the numbers they are, or places."""
        made = cls(np.array(names, object))
        numbers: dict[object, int] = {}
        for at, name in enumerate(names):
            with suppress(ValueError):
                numbers[float(_TRUTHS.get(name, name))] = at
        made._lookup.update(numbers or {at: at for at in range(len(names))})
        return made

    def call(self, names: Sequence[str] | None) -> None:
        """Call the classes of one output by these names, in their order, where there are as many."""
        if names is not None and len(names) == len(set(names)) == len(self.labels):
            self.labels = tuple(names)

    def name_outputs(self, names: Sequence[str] | None) -> None:
        """Call the outputs by these names, or y0, y1, … where they do not fit; more than a span carries have none."""
        if 1 < self.outputs <= MAX_OUTPUTS:
            fits = names is not None and len(names) == len(set(names)) == self.outputs
            self.names = tuple(names) if fits and names else tuple(f"y{k}" for k in range(self.outputs))

    @property
    def are_indicators(self) -> bool:
        """Whether each of several outputs answers with 0 and 1, however these are written."""
        return self.outputs > 1 and _INDICATORS.issuperset(self.labels)

    def answer(self, row: list[float]) -> int:
        """The column of the class that these probabilities mean; of equal ones the first."""
        if self.threshold is None:
            return row.index(max(row))
        column, least = self.threshold
        return column if row[column] >= least else 1 - column

    def answers(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        """The same of (n_rows, n_classes), as (n_rows,) columns."""
        if self.threshold is None:
            found: NDArray[Any] = probabilities.argmax(axis=1)
            return found
        column, least = self.threshold
        return np.where(probabilities[:, column] >= least, column, 1 - column)

    def index(self, value: object) -> int:
        """The class's index, or -1."""
        try:
            return self._lookup.get(value, -1)
        except TypeError:  # not hashable
            return -1

    def indices(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """The index of each value, -1 for unknown; same shape, int32."""
        known = self._sorted
        if known is not None and len(known) and values.dtype.kind in "iufb" and values.size > _FEW:
            at = np.minimum(np.searchsorted(known, values), len(known) - 1)
            return np.where(known[at] == values, at, -1).astype(I4)
        flat = np.fromiter(map(self.index, values.ravel().tolist()), I4, values.size)
        return flat.reshape(values.shape)


def classes_of(model: object, task: str | None = None, names: Sequence[str] | None = None) -> Classes | None:
    """The classes of a fitted model, to be asked for once per fitted model. Never raises.

    Args:
        model: a fitted estimator with `classes_` (an array, or one array per output).
        task: its ``ml.model.task``; outlier detectors without `classes_` answer "-1" and "1", multilabel models with an
            array of them have one output for each.
        names: of the classes, of a multilabel model of its outputs, as the user says.

    Returns:
        None for a model without classes, or with more than 1,024.
    """
    try:
        values = getattr(model, "classes_", None)
        if values is None and task == "multilabel" and names is not None and len(names) > 1:
            return Classes.of_outputs(len(names), names)
        if values is None and task == "classification" and names is not None:
            return Classes.named(names) if 0 < len(names) == len(set(names)) <= MAX_CLASSES else None
        if values is None and task == "outlier_detection":
            values = _OUTLIER_CLASSES
        if values is None:
            return None
        if isinstance(values, (list, tuple)) and values and all(isinstance(v, np.ndarray) for v in values):
            parts = list(values)
            if sum(map(len, parts)) > MAX_CLASSES:
                return None
            found = Classes(parts)
            if task == "multilabel" and found.are_indicators:
                found.name_outputs(names)
            return found
        values = np.asarray(values)
        if values.ndim != 1 or not 0 < len(values) <= MAX_CLASSES:
            return None
        if task == "multilabel" and len(values) > 1:
            # Two may be the values of each output; then only the user knows how many outputs there are.
            if len(values) == 2 and names is not None:
                return Classes.of_outputs(len(names), names)
            own = None if values.tolist() == list(range(len(values))) else tuple(map(text_of, values.tolist()))
            return Classes.of_outputs(len(values), names or own)
        made = Classes(values)
        made.call(names)
        made.are_compared = _are_compared(model)
        made.threshold = _threshold(model, made)
        return made
    except Exception:  # noqa: BLE001 - a property of a foreign model may do anything
        return None


def _are_compared(model: object) -> bool:
    """Whether the estimator whose raw scores these are is a support vector machine that was told to answer pairs."""
    passed_on = delegates(model)
    passed_on += delegates(read(passed_on[-1], "final_estimator_"))  # of a stack
    return any(read(part, "decision_function_shape") == "ovo" for part in passed_on)


def _threshold(model: object, classes: Classes) -> tuple[int, float] | None:
    """What scikit-learn's classifiers with a threshold of their own go by, where it is one of probabilities."""
    tuned = next(
        (part for part in delegates(model) if _THRESHOLDED in (cls.__name__ for cls in type(part).__mro__)), None
    )
    if tuned is None or len(classes.labels) != 2 or read(tuned, "response_method") not in {"auto", "predict_proba"}:
        return None
    least = read(tuned, "best_threshold_")
    positive = read(tuned, "pos_label")
    if least is None:
        least = read(tuned, "threshold")
    else:
        # The scorer it was tuned by knows; scikit-learn has no public way to that.
        ask = read(read(tuned, "_curve_scorer"), "_get_pos_label")
        positive = ask() if callable(ask) else None
    column = 1 if positive is None else classes.index(positive)
    if column < 0 or not isinstance(least, (int, float)):  # "auto": one half
        return None
    return column, float(least)
