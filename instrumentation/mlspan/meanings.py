"""Stage 2, capture: what the outputs of a booster or an inference session mean, and `Output` of them.

Reads what a library says of its model (an objective), what the user says, and where neither does, the first outputs;
writes class indices, probabilities or numbers of the captured rows. Guarantee: nothing is claimed that is not known:
outputs that could be anything are not captured. docs/native.md has the rules.
"""

from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mlspan.answers import adopt, as_array
from mlspan.budget import ByteBudget
from mlspan.captured import Input, Output
from mlspan.classes import Classes
from mlspan.columns import text_of
from mlspan.guard import failed, warn_once
from mlspan.models import Registration
from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE
from mlspan.single import answer_probabilities, answer_row
from mlspan.tensor_answers import TOLERANCE, Answers

MAX_NAMED: Final = 1_024
_LOGITS: Final = frozenset({"logits", "output_logits"})


class Found(NamedTuple):
    """The answers among a call's result, of the captured rows.

    Attributes:
        values: (n_captured, n_outputs) numbers, or None.
        labels: (n_captured,) classes as the model calls them, or None.
        classes: what each column of `values` is called, where the result says so.
        name: of the output that `values` are.
    """

    values: NDArray[Any] | None
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    name: str = ""


class _Said(NamedTuple):
    """What is known of a model, as `Answers` reads it from what the user told; of no object, so that none is kept."""

    task: str | None
    classes: tuple[str, ...] | None
    output: str | None


class Meaning:
    """What one model's outputs mean.

    Args:
        kind: the name of its class, for messages.
        told: what the user says of it, or None.
        form: what the library says its outputs are, as `mlspan.config.OUTPUTS` calls it; "": nothing.
        width: columns of the outputs.
        task: the value of ``ml.model.task`` that goes with it, or None.
        is_guessed: where nobody says anything, the outputs themselves may.

    Attributes:
        is_open: it may still be decided by an output.
        classes: of the model, or None.
        task: the value of ``ml.model.task``, or None.
    """

    __slots__ = ("_answers", "_form", "_is_guessed", "_kind", "_told", "classes", "is_open", "task")

    def __init__(
        self,
        kind: str,
        told: Registration | None,
        form: str = "",
        width: int = 1,
        task: str | None = None,
        is_guessed: bool = False,
    ) -> None:
        self._kind = kind
        self._told = told
        self._is_guessed = is_guessed
        self._answers: Answers | None = None
        self.classes: Classes | None = None
        self.task = told.task if told is not None and told.task else task
        said = told.output if told is not None and told.output != "auto" else None
        if said is None and told is not None and told.task == "regression":
            form, said = "values", "values"
        self._form = said or form
        self.is_open = bool(self._form) or is_guessed or self._is_class()
        if form and said in {None, form}:
            count = max(width, 2) if form == "labels" else width
            names = tuple(map(str, range(count))) if form == "labels" and count <= MAX_NAMED else None
            self._settle(np.empty((0, width), np.float32), names, form)

    def decide(self, found: Found) -> bool:
        """Settle the form by the first output, if it says enough; True when something is known now."""
        if not self.is_open:
            return False
        values, form = found.values, self._form
        if found.labels is not None and (form == "labels" or (self._is_guessed and not form)):
            return self._decide_by_labels(found)
        if values is None or not len(values):
            return False
        if not form and not self._is_class() and values.shape[1] > 1:
            if values.dtype.kind != "f":
                return False
            if found.name in _LOGITS:
                form = "logits"
            elif not _add_up(values) and not _add_up(np.exp(np.minimum(values, 1.0))):
                return False
        elif not form and not self._is_class() and values.dtype.kind != "f":
            return False
        self._settle(values, found.classes, form)
        return True

    def read(self, found: Found, captured: Input) -> Output:
        """The answers of the captured rows. Never raises."""
        output = Output()
        try:
            if self._answers is not None and found.values is not None:
                output = self._answers.read(found.values, captured)[0]
            if found.labels is not None and self.classes is not None:
                self._label(found, captured, output)
        except Exception:  # noqa: BLE001 - whatever a result does, the user's call goes on
            failed("capture: output")
            return Output()
        return output

    def row(
        self, found: Found, captured: Input, max_bytes: int, limiter: ByteBudget
    ) -> tuple[bytes, str | float, float | None] | None:
        """The payload of a single row in one step, its answer, and that class's probability; None: the general way."""
        answers, values, schema = self._answers, found.values, captured.schema
        if answers is None or values is None or schema is None or found.labels is not None or captured.rows != 1:
            return None
        if answers.form == "values":
            one = values.reshape(-1)
            return answer_row("predict", one, captured, None, max_bytes, limiter) if len(one) == 1 else None
        if self.classes is None or answers.form in {"labels", "embedding"}:
            return None
        try:
            row = answers.row(values.tolist()[0])
        except (ArithmeticError, ValueError):
            return None
        if row is None or not captured.has_cells:
            return None
        return answer_probabilities(row, captured, self.classes, max_bytes, limiter)

    def _is_class(self) -> bool:
        told = self._told
        return told is not None and (bool(told.classes) or told.task in {"classification", "multilabel"})

    def _named(self, own: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """The names of the classes in the order of the outputs: the user's, unless they are the result's own."""
        told = self._told.classes if self._told is not None else None
        return own if told is None or (own is not None and set(own) == set(told)) else told

    def _settle(self, values: NDArray[Any], names: tuple[str, ...] | None, form: str) -> None:
        said = _Said(self.task, self._named(names), form or None)
        answers = Answers(None, cast(Registration, said), "auto", "")
        answers.decide("", values)
        self._answers = answers
        self.classes = answers.classes
        self.task = answers.task
        self.is_open = False

    def _decide_by_labels(self, found: Found) -> bool:
        """A class for each row, and perhaps a number for each class beside it."""
        values, labels = found.values, found.labels
        names = self._named(found.classes)
        assert labels is not None
        form = self._form_beside(found, names)
        if form and values is not None:
            if names is None or len(names) != values.shape[1]:
                if labels.dtype.kind not in "iu" or not bool((labels == values.argmax(axis=1)).all()):
                    warn_once(
                        "native: classes",
                        "the classes of %s cannot be known from its outputs: tell instrument_model(…, classes=[…])",
                        self._kind,
                    )
                    self.is_open = False
                    return False
                names = tuple(map(str, range(values.shape[1])))
            self._settle(values, names, form)
            return True
        if names is None or len(names) > MAX_NAMED:
            return False
        self.classes = Classes(np.array(names, object))
        self.task = (self._told.task if self._told is not None else None) or "classification"
        self.is_open = False
        return True

    def _form_beside(self, found: Found, names: tuple[str, ...] | None) -> str:
        """What the numbers beside labels are: "probabilities", "logits"; "": not known."""
        values, labels = found.values, found.labels
        if values is None or labels is None or values.dtype.kind != "f" or values.shape[1] < 2:
            return ""
        if _add_up(values):
            return "probabilities"
        if found.name in _LOGITS:
            return "logits"
        if names is None or found.classes is not None or len(names) != values.shape[1]:
            return ""
        # Raw scores may be of pairs of classes, or be turned into a label in a way of their own.
        said = _positions(labels, Classes(np.array(names, object)))
        return "logits" if said is not None and bool((said == values.argmax(axis=1)).all()) else ""

    def _label(self, found: Found, captured: Input, output: Output) -> None:
        """The class that the model itself says, which need not be the likeliest one."""
        classes, labels = self.classes, found.labels
        assert classes is not None
        assert labels is not None
        known = _positions(labels, classes if found.classes is None else Classes(np.array(found.classes, object)))
        if known is None or output.prediction_kind not in {PREDICTION_NONE, PREDICTION_CLASS}:
            return
        output.prediction_kind = PREDICTION_CLASS
        output.predictions = known.reshape(-1, 1)
        if captured.rows == 1:
            at = int(known[0])
            output.value = classes.labels[at] if at >= 0 else None
            scores = output.scores
            fits = scores is not None and scores.shape[1] == len(classes.labels)
            output.score = float(scores[0, at]) if scores is not None and fits and at >= 0 else None


def _positions(labels: NDArray[Any], classes: Classes) -> NDArray[np.int32] | None:
    """The index of each label among the classes, by name or by position, -1 for another one; None: none is known."""
    known = np.array([classes.index(text_of(label)) for label in labels.tolist()], np.int32)
    if bool((known < 0).all()):  # positions among classes with names of the user's
        if labels.dtype.kind not in "iu":
            return None
        known = np.where((labels >= 0) & (labels < len(classes.labels)), labels, -1).astype(np.int32)
    return known


def as_values(result: Any, captured: Input) -> NDArray[Any] | None:
    """A result with a number or a row of numbers for each row of the input, of the captured rows; or None."""
    try:
        values = as_array(result)
    except Exception:  # noqa: BLE001 - whatever a result does, the user's call goes on
        failed("capture: output")
        return None
    if values is None or values.ndim not in {1, 2} or not values.size or values.dtype.kind not in "fiu":
        return None
    values = picked(values, captured)
    return values if values is None or values.ndim == 2 else values.reshape(-1, 1)


def picked(values: NDArray[Any], captured: Input) -> NDArray[Any] | None:
    """The captured rows of an array; None where it has not a row for each of the input's."""
    if captured.cells is None and not adopt(captured, len(values)):
        return None
    if len(values) != captured.rows:
        return None
    return values if captured.indices is None else values[captured.indices]


def _add_up(values: NDArray[Any]) -> bool:
    """Whether all rows are probabilities."""
    if not np.isfinite(values).all() or float(values.min()) < 0:
        return False
    return bool((np.abs(values.sum(axis=1) - 1) <= TOLERANCE).all())
