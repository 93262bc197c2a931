"""Stage 2, capture: what of a torch module's output is the answer, and what kind of answer it is.

Reads the result of a call, writes `Output` for the captured rows. Which form a model's outputs have (probabilities,
logits, numbers, an embedding) is decided once per version, from what the user says, what the model says of itself, and
the first output; docs/torch.md has the rules in their order. Guarantee: the result is not changed or kept.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.answers import MAX_OUTPUTS, read_answers
from mlspan.captured import Input, Output
from mlspan.classes import I4, MAX_CLASSES, Classes
from mlspan.columns import F4, to_float32
from mlspan.config import OUTPUTS
from mlspan.identity import read
from mlspan.inputs.summaries import projection
from mlspan.inputs.torch_values import children, is_tensor, kind_of
from mlspan.models import Registration
from mlspan.payload import PREDICTION_CLASS, SCORE_PROBABILITY

FIRST_KEYS: Final = ("logits", "probabilities", "probs", "scores", "prediction", "predictions", "preds", "output")
"""Fields of a result that are the answer, before all others."""
MAX_EMBEDDING: Final = 4_096
TOLERANCE: Final = 1e-3
_CLASS_FORMS: Final = frozenset({"probabilities", "log_probabilities", "logits"})
_HEADS: Final = frozenset({"classifier", "classes", "heads", "logits"})
_COUNTS: Final = ("num_classes", "num_labels", "n_classes", "num_class")
_TASKS: Final = {"values": "regression", "embedding": "transformation", "labels": "classification"}


_TINY: Final = float(np.finfo(np.float32).tiny)
_FLOATS: Final[dict[Any, Any]] = {}
"""Plain dtypes of numbers that were seen -> the plain layout."""


class Answers:
    """The form of one model version's outputs.

    Attributes:
        form: "probabilities", "log_probabilities", "logits", "labels", "values" or "embedding"; "" before the first
            output.
        binary: one column stands for two classes.
        several: each column is a class of its own, which may be true beside others.
        classes: of the model, or None.
        task: the value of ``ml.model.task``.
        width: columns of the output.
    """

    __slots__ = ("_evidence", "_names", "_task", "binary", "classes", "form", "several", "task", "width")

    def __init__(self, model: Any, told: Registration | None, default: str, last: str) -> None:
        self.form = ""
        self.binary = self.several = False
        self.width = 0
        self.classes: Classes | None = None
        self.task: str | None = None
        self._task = told.task if told else None
        self._names = (told.classes if told else None) or _labels_of(model)
        said = (told.output if told else None) or default
        self._evidence = _evidence(model, last, self._task, told) if said == "auto" else said

    def decide(self, key: str, values: NDArray[Any], is_matrix: bool = True) -> None:
        """Settle the form by the first output.

        Args:
            key: its name in the result.
            values: (n_rows, n_outputs).
            is_matrix: it has one value or one row of values for each row, no more dimensions.
        """
        count = values.shape[1]
        said = self._evidence
        self.several = self._task == "multilabel" or said == "several"
        is_class = self._task == "classification" or self._names is not None
        if not is_matrix:
            form = "embedding"
        elif values.dtype.kind != "f":
            form = "labels" if count == 1 and (is_class or said in {"labels", "classes"}) else "values"
        elif said in OUTPUTS:
            form = said
        elif self.several:
            form = "probabilities" if _within_one(values) else "logits"
        else:
            form = _by_values(values)
            if not form and count > 1 and (is_class or said or key == "logits"):
                form = "logits"
            if not form and count == 1 and is_class:
                form = "probabilities" if _within_one(values) else "logits"
        self.form = form or ("values" if count <= MAX_OUTPUTS else "embedding")
        self.several = self.several and self.form in _CLASS_FORMS
        self._settle(count)

    def _settle(self, count: int) -> None:
        form = self.form
        self.width = count
        if self.several:
            self.task = "multilabel"
            if count > 1:
                self.classes = Classes.of_outputs(count, self._names)
        elif form in _CLASS_FORMS:
            self.binary = count == 1
            self.task = "classification"
            number = 2 if self.binary else count
            if number <= MAX_CLASSES:
                names = self._names if self._names and len(self._names) == number else tuple(map(str, range(number)))
                self.classes = Classes(np.array(names, object))
        elif form == "labels":
            self.task = "classification"
            self.classes = Classes(np.array(self._names, object)) if self._names else None
        elif self._task is not None:
            self.task = self._task
        else:
            self.task = "multilabel" if form == "values" and count > 1 else _TASKS[form]

    def row(self, values: list[float]) -> list[float] | None:
        """The probabilities of a single row, where the form has them and they are plain."""
        if self.several or self.classes is None or len(values) != self.width:
            return None
        if self.binary:
            value = values[0] if self.form == "probabilities" else _sigmoid(values[0], self.form)
            return [1.0 - value, value]
        if self.form == "probabilities":
            return values
        if self.form == "log_probabilities":
            return [math.exp(value) for value in values]
        if self.form == "logits":
            top = max(values)
            raised = [math.exp(value - top) for value in values]
            total = sum(raised)
            return [value / total for value in raised]
        return None

    def read(self, values: NDArray[Any], captured: Input) -> tuple[Output, float | None]:
        """The answers of the captured rows, and the mean entropy of their probabilities (nats), if any.

        Args:
            values: (n_captured, n_outputs) outputs of the captured rows.
            captured: of the same call's input.
        """
        form = self.form
        if form in _CLASS_FORMS and values.shape[1] != self.width:
            return Output(), None
        if form == "labels":
            whole = values[:, 0].astype(np.int64)
            if self.classes is None:
                return read_answers("predict", values, captured, None), None
            known = np.where((whole >= 0) & (whole < len(self.classes.labels)), whole, -1)
            return read_answers("class_index", known, captured, self.classes), None
        if form == "embedding":
            return read_answers(
                "predict", projection(values[:, :MAX_EMBEDDING].astype(np.float64)), captured, None
            ), None
        if form == "values":
            return read_answers("predict", values, captured, None), None
        # What is computed with is so in double precision; what is ready is read as it is.
        is_ready = form == "probabilities" and not self.binary and values.dtype == F4
        probabilities = values if is_ready else self._probabilities(values.astype(np.float64))
        if self.several:
            return read_answers("indicators", probabilities, captured, None), _entropy_of_several(probabilities)
        spread = entropy(probabilities)
        if spread is not None and len(probabilities) > 1 and self.classes is not None:
            return self._read_classes(probabilities), spread
        return read_answers("predict_proba", probabilities, captured, self.classes), spread

    def _read_classes(self, probabilities: NDArray[Any]) -> Output:
        """The commonest case: what `read_answers` makes of several rows without a NaN, in half the time."""
        output = Output()
        output.prediction_kind, output.score_kind = PREDICTION_CLASS, SCORE_PROBABILITY
        output.predictions = probabilities.argmax(axis=1).astype(I4)[:, None]
        if probabilities.shape[1] > MAX_OUTPUTS:
            probabilities = probabilities.max(axis=1, keepdims=True)
        output.scores = probabilities if probabilities.dtype == F4 else to_float32(probabilities)
        return output

    def _probabilities(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore", invalid="ignore"):
            if self.form == "log_probabilities":
                values = np.exp(values)
            elif self.form == "logits":
                if self.binary or self.several:
                    values = 1.0 / (1.0 + np.exp(-values))
                else:
                    values = np.exp(values - values.max(axis=1, keepdims=True))
                    values /= values.sum(axis=1, keepdims=True)
        return np.hstack((1.0 - values, values)) if self.binary else values


def answer_in(result: Any, rows: int) -> tuple[str, Any]:
    """The part of a result that is the answer, and its name: a tensor with a row for each of the input's, or None.

    Of several, the one with the first of FIRST_KEYS, then the first one.
    """
    if is_tensor(result):
        if result.is_cpu and result.dim() == 2 and result.dtype in _FLOATS and result.shape[0] == rows:
            return "", result if result.layout is _FLOATS[result.dtype] and rows else None
        return "", result if _fits(result, rows) else None
    found = [(str(key), value) for key, value in children(result) if is_tensor(value) and _fits(value, rows)]
    for key in FIRST_KEYS:
        for name, value in found:
            if name == key:
                return name, value
    # A single number without such a name is more likely a loss than the answer to the one row.
    return next(((name, value) for name, value in found if name != "loss" and value.dim()), ("", None))


def as_rows(tensor: Any, rows: int) -> Any:
    """The answer as (n_rows, n_outputs)."""
    if tensor.dim() == 2:
        return tensor
    if tensor.dim() == 1 and rows == 1 and tensor.shape[0] != 1:
        return tensor[None]
    if tensor.dim() == 0:
        return tensor.reshape(1, 1)
    return tensor.reshape(tensor.shape[0], -1)


def entropy(probabilities: NDArray[Any]) -> float | None:
    """Mean Shannon entropy of the rows, in nats; None where it is not a number."""
    if not len(probabilities):
        return None
    positive = np.maximum(probabilities, _TINY)  # x log x is next to nothing there, and no warning
    mean = -float(np.vdot(positive, np.log(positive))) / len(positive)
    return max(mean, 0.0) if math.isfinite(mean) else None


def row_entropy(row: list[float]) -> float:
    """The same of one row of probabilities."""
    total = 0.0
    for value in row:
        if value > 0:
            total -= value * math.log(value)
    return max(total, 0.0)


def _entropy_of_several(probabilities: NDArray[np.float64]) -> float | None:
    """Mean over labels, each of two classes."""
    flat = probabilities.reshape(-1, 1)
    return entropy(np.hstack((1.0 - flat, flat)))


def _fits(tensor: Any, rows: int) -> bool:
    """Whether it can be the answer for so many rows (0: not known)."""
    try:
        return _has_rows(tensor, rows)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):  # a tensor by its class only
        return False


def _has_rows(tensor: Any, rows: int) -> bool:
    if tensor.is_nested or str(tensor.layout) != "torch.strided" or tensor.device.type not in {"cpu", "cuda"}:
        return False
    if tensor.dtype.is_complex or not tensor.numel():
        return False
    if kind_of(tensor.dtype) == "f" and tensor.is_cpu:
        _FLOATS[tensor.dtype] = tensor.layout
    if tensor.dim() == 0:  # what squeeze() leaves of one row
        return rows == 1
    return tensor.shape[0] == rows or (rows == 1 and tensor.dim() == 1) or not rows


def _by_values(values: NDArray[Any]) -> str:
    """ "probabilities" or "log_probabilities" where the rows say so by themselves; else ""."""
    if values.shape[1] < 2 or not len(values) or not np.isfinite(values).all():
        return ""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 + TOLERANCE and bool((np.abs(values.sum(axis=1) - 1) <= TOLERANCE).all()):
        return "probabilities"
    if high <= TOLERANCE and bool((np.abs(np.exp(values).sum(axis=1) - 1) <= TOLERANCE).all()):
        return "log_probabilities"
    return ""


def _within_one(values: NDArray[Any]) -> bool:
    return bool(len(values)) and float(values.min()) >= 0 and float(values.max()) <= 1


def _sigmoid(value: float, form: str) -> float:
    if form == "log_probabilities":
        return math.exp(value)
    return 1.0 / (1.0 + math.exp(-value)) if value > -700 else 0.0


def _evidence(model: Any, last: str, task: str | None, told: Registration | None) -> str:
    """What the model itself says of its outputs.

    "" nothing; "classes": of several outputs, each is a class; "several": of which several may be true; or a form.
    """
    if task == "regression":
        return "values"
    if last in {"Softmax", "LogSoftmax"}:
        return "probabilities" if last == "Softmax" else "log_probabilities"
    problem = read(read(model, "config"), "problem_type")
    if problem == "regression":
        return "values"
    if problem == "multi_label_classification":
        return "several"
    if problem == "single_label_classification" or (told is not None and told.classes):
        return "classes"
    kind = type(model)
    if "Classif" in kind.__name__ or kind.__module__.startswith("torchvision.models"):
        return "classes"
    counts = [count for name in _COUNTS if isinstance(count := read(model, name), int)]
    if counts:  # 0: the head was taken off
        return "classes" if max(counts) > 1 else "values" if counts[0] == 1 else "embedding"
    modules = read(model, "_modules")
    try:
        return "classes" if modules and list(modules.keys())[-1] in _HEADS else ""
    except Exception:  # noqa: BLE001 - a scripted module's table
        return ""


def _labels_of(model: Any) -> tuple[str, ...] | None:
    """The names of the classes that a transformers model has in its configuration, in the order of its outputs."""
    labels = read(read(model, "config"), "id2label")
    if not isinstance(labels, dict) or not 1 < len(labels) <= MAX_CLASSES:
        return None
    try:
        if "For" not in type(model).__name__ or "Classification" not in type(model).__name__:
            return None
        return tuple(str(labels[at]) for at in range(len(labels)))
    except KeyError:
        return None


__all__ = ["Answers", "answer_in", "as_rows", "entropy", "kind_of", "row_entropy"]
