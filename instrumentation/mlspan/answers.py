"""Stage 2, capture: what of a call's result leaves the process.

Reads the result of a model call, writes `Output`: class indices or numbers, probabilities or raw scores of the rows
that were captured of the input. Guarantee: never raises, changes or keeps the result; a result of another length than
the input, or of no known form, is not captured. docs/capture.md has the table.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.captured import EMPTY_SCHEMA, Input, Output
from mlspan.classes import I4, MAX_OUTPUTS, Classes, classes_of
from mlspan.columns import F4, U4, to_float32
from mlspan.guard import failed
from mlspan.payload import PREDICTION_CLASS, PREDICTION_NUMBER, SCORE_PROBABILITY, SCORE_RAW
from mlspan.sampling import row_bound, sample

__all__ = ["MAX_OUTPUTS", "Classes", "adopt", "as_array", "capture_output", "classes_of", "read_answers"]

_FLOAT32_MAX: Final = float(np.finfo(F4).max)
_ANSWER_BYTES: Final = 16


def capture_output(
    operation: str,
    result: object,
    captured: Input,
    classes: Classes | None,
    probabilities: object = None,
) -> Output:
    """What is captured of a call's result, after the call. Never raises; keeps no reference to the result.

    Args:
        operation: the method's name.
        result: what it returned.
        captured: of the same call's input. Where the input's type is unsupported, its rows are counted here.
        classes: of the model, or None.
        probabilities: (n_rows, n_classes) of the same rows, where a nested predict_proba returned them; else None.
    """
    reader = _READERS.get(operation)
    if reader is None or captured.schema is None:
        return Output()
    try:
        if type(result) is not np.ndarray:
            if isinstance(result, tuple) and result:  # predict(X, return_std=True)
                result = result[0]
            if isinstance(result, list) and result and isinstance(result[0], np.ndarray) and result[0].ndim == 2:
                output = Output()
                if operation in {"predict_proba", "predict_log_proba"}:
                    _several_probabilities(result, captured, classes, output, operation == "predict_log_proba")
                return output
            result = as_array(result)
        if result is None or result.ndim not in {1, 2} or not result.size:
            if result is None or result.ndim or captured.rows != 1:
                return Output()
            result = result.reshape(1)  # what squeeze() leaves of one row
        if reader is not _predict and result.dtype.kind not in "fiub":
            return Output()
        if captured.cells is None and not adopt(captured, len(result)):
            return Output()
        if len(result) != captured.rows:
            return Output()
        indices = captured.indices
        if indices is not None:
            result = result[indices]
        output = Output()
        reader(result, captured, classes, output, probabilities)
    except Exception:  # noqa: BLE001 - whatever a result does, the user's call goes on
        failed("capture: output")
        return Output()
    return output


def read_answers(reader: str, values: NDArray[Any], captured: Input, classes: Classes | None) -> Output:
    """The answers of the captured rows, where they are at hand already. Never raises.

    Args:
        reader: "predict" (numbers), "predict_proba" (probabilities), "class_index" or "indicators" (probabilities of
            labels of which several may be true).
        values: (n_captured, n_outputs); of class indices (n_captured,), -1 for another class.
        captured: of the same call's input.
        classes: of the model, or None.
    """
    output = Output()
    try:
        if not values.size:
            return output
        if reader == "class_index":
            output.prediction_kind = PREDICTION_CLASS
            output.predictions = values.astype(I4).reshape(-1, 1)
            if captured.rows == 1 and classes is not None and values[0] >= 0:
                output.value = classes.labels[int(values[0])]
        elif reader == "indicators":
            _indicators(values, output)
        elif reader == "predict_proba":
            _predict_proba(values, captured, classes, output, None)
        else:
            _number(values, captured, output)
    except Exception:  # noqa: BLE001 - whatever a result does, the user's call goes on
        failed("capture: output")
        return Output()
    return output


def _predict(
    result: NDArray[Any], captured: Input, classes: Classes | None, output: Output, probabilities: object
) -> None:
    if classes is None or not classes.labels or (classes.outputs == 1 and result.ndim == 2 and result.shape[1] > 1):
        _number(result, captured, output)  # indicators of several labels are numbers
        return
    if captured.rows == 1 and result.size == 1:
        index = classes.index(result.item())
        output.predictions = classes.single[index]
        output.value = classes.labels[index] if index >= 0 else None
    else:
        found = classes.indices(result)
        output.predictions = found.reshape(len(result), -1)[:, :MAX_OUTPUTS]
        index = -1
    output.prediction_kind = PREDICTION_CLASS
    if probabilities is not None:
        _beside(probabilities, captured, classes, output, index)


def _beside(probabilities: Any, captured: Input, classes: Classes, output: Output, index: int) -> None:
    """Probabilities that a nested call returned, beside the classes predicted from them."""
    if isinstance(probabilities, list) and classes.positions:
        beside = Output()
        _several_probabilities(probabilities, captured, classes, beside, logarithms=False)
        # Where ties are broken another way, the probability is not that of the class that was predicted.
        said, best = output.predictions, beside.predictions
        if said is not None and best is not None and np.array_equal(said, best):
            output.score_kind, output.scores = beside.score_kind, beside.scores
        return
    if type(probabilities) is not np.ndarray or probabilities.shape != (captured.rows, len(classes.labels)):
        return
    if captured.indices is not None:
        probabilities = probabilities[captured.indices]
    output.score_kind = SCORE_PROBABILITY
    output.scores = _bounded(probabilities)
    if captured.rows == 1 and index >= 0:
        output.score = _finite(probabilities[0, index])


def _number(result: NDArray[Any], captured: Input, output: Output, _: object = None) -> None:
    if captured.rows == 1 and result.size == 1 and result.dtype.kind in "fiub":
        number = float(result.item())
        output.prediction_kind = PREDICTION_NUMBER
        if -_FLOAT32_MAX < number < _FLOAT32_MAX:
            output.predictions = np.array([[number]], F4)
            output.value = number
        else:  # out of range, infinite or not a number
            output.predictions = to_float32(result.reshape(1, 1))
            output.value = _finite(number)
        return
    if result.dtype.kind == "O" and all(isinstance(value, (int, float)) for value in result.ravel().tolist()):
        result = result.astype(np.float64)
    if result.dtype.kind not in "fiub":
        return
    if result.ndim == 1:
        result = result.reshape(-1, 1)
    output.prediction_kind = PREDICTION_NUMBER
    output.predictions = to_float32(result[:, :MAX_OUTPUTS])
    if captured.rows == 1 and result.shape[1] == 1:
        output.value = _finite(result[0, 0])


def _score_samples(result: NDArray[Any], captured: Input, _: Classes | None, output: Output, __: object) -> None:
    _number(result, captured, output)


def _predict_proba(result: NDArray[Any], captured: Input, classes: Classes | None, output: Output, _: object) -> None:
    if result.ndim == 1:
        if classes is None or len(classes.labels) != 2:
            return
        result = np.column_stack((1.0 - result.astype(np.float64), result))
    count = result.shape[1]
    if classes is not None and count == len(classes.names):
        _indicators(result, output)
        return
    output.score_kind = SCORE_PROBABILITY
    row = result[0].tolist() if captured.rows == 1 else []
    if row and count <= MAX_OUTPUTS and min(row) >= 0 and max(row) <= 1:
        output.scores = result.astype(F4, order="C")  # what is in range needs no guard against warnings
    else:
        output.scores = _bounded(result)
    if classes is not None and (classes.outputs != 1 or count != len(classes.labels)):
        return  # several labels at once: each column is a probability of its own
    if row:
        index = -1  # of what is not a number
        if not any(map(math.isnan, row)):
            index = row.index(max(row)) if classes is None else classes.answer(row)
        if classes is None:
            output.prediction_kind = PREDICTION_NUMBER
            output.predictions = np.array([[index]], F4)
            output.value = float(index)
        else:
            output.prediction_kind = PREDICTION_CLASS
            output.predictions = classes.single[index]
            output.value = classes.labels[index] if index >= 0 else None
        output.score = _finite(row[index]) if index >= 0 else None
        return
    _classify(_best(result, classes), classes, output)


def _indicators(probabilities: NDArray[Any], output: Output) -> None:
    """Several labels at once: the probability of each, and whether it is above one half."""
    output.prediction_kind = PREDICTION_NUMBER
    output.predictions = to_float32(probabilities[:, :MAX_OUTPUTS] > 0.5)
    output.score_kind = SCORE_PROBABILITY
    output.scores = to_float32(probabilities[:, :MAX_OUTPUTS])


def _predict_log_proba(
    result: NDArray[Any], captured: Input, classes: Classes | None, output: Output, _: object
) -> None:
    with np.errstate(over="ignore"):
        _predict_proba(np.exp(result), captured, classes, output, None)


def _decision_function(
    result: NDArray[Any], captured: Input, classes: Classes | None, output: Output, _: object
) -> None:
    column = result.reshape(-1, 1) if result.ndim == 1 else result
    output.score_kind = SCORE_RAW
    output.scores = to_float32(column[:, :MAX_OUTPUTS])
    if classes is not None and classes.outputs == 1:
        known = len(classes.labels)
        if column.shape[1] == 1 and known == 2:
            _classify((column[:, 0] > 0).astype(I4), classes, output)
        elif column.shape[1] == known and not classes.are_compared:  # three classes have three pairs
            _classify(_best(column), classes, output)
    if captured.rows == 1:
        if output.predictions is not None and classes is not None and output.predictions[0, 0] >= 0:
            output.value = classes.labels[int(output.predictions[0, 0])]
        elif column.shape[1] == 1:
            output.value = _finite(column[0, 0])


def _several_probabilities(
    results: list[NDArray[Any]], captured: Input, classes: Classes | None, output: Output, logarithms: bool
) -> None:
    """One array of probabilities per output: the best class of each, and its probability."""
    if captured.cells is None and not adopt(captured, len(results[0])):
        return
    positions = () if classes is None else classes.positions
    shapes = [part.shape for part in results]
    if shapes != [(captured.rows, len(position)) for position in positions]:
        return
    predictions, scores = [], []
    for part, position in zip(results[:MAX_OUTPUTS], positions, strict=False):
        sampled = part if captured.indices is None else part[captured.indices]
        best = _best(sampled)
        predictions.append(np.where(best >= 0, position[best], -1))
        top = sampled.max(axis=1)
        scores.append(np.exp(top) if logarithms else top)
    output.prediction_kind = PREDICTION_CLASS
    output.predictions = np.stack(predictions, axis=1).astype(I4, order="C")
    output.score_kind = SCORE_PROBABILITY
    output.scores = to_float32(np.stack(scores, axis=1))


def _classify(best: NDArray[Any], classes: Classes | None, output: Output) -> None:
    """Class indices as predictions; as numbers where the model has components rather than classes."""
    output.prediction_kind = PREDICTION_NUMBER if classes is None else PREDICTION_CLASS
    output.predictions = best.astype(F4 if classes is None else I4).reshape(-1, 1)


def _best(values: NDArray[Any], classes: Classes | None = None) -> NDArray[Any]:
    """The column of each row's largest value, or the one that the classes' threshold says; -1 for a row with NaN."""
    best: NDArray[Any] = values.argmax(axis=1) if classes is None else classes.answers(values)
    best[np.isnan(values).any(axis=1)] = -1
    return best


def _bounded(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    if probabilities.shape[1] > MAX_OUTPUTS:
        probabilities = probabilities.max(axis=1, keepdims=True)
    return to_float32(probabilities)


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def adopt(captured: Input, rows: int) -> bool:
    """For inputs without cells. Of an input that is not captured, the answers are: its rows are those of the result."""
    if captured.schema is not EMPTY_SCHEMA or captured.rows not in {0, rows} or not rows:
        return False
    bound = row_bound(rows, _ANSWER_BYTES, rows * _ANSWER_BYTES, captured.max_rows, 0)
    captured.rows = rows
    captured.indices = sample(rows, bound).astype(U4) if bound < rows else None
    captured.cells = np.empty((bound, 0), F4)
    return True


def as_array(result: Any) -> NDArray[Any] | None:
    """A result (or labels) of any type as an array, where that costs little; else None."""
    if isinstance(result, (np.ndarray, np.generic)):
        return np.asarray(result)
    library = type(result).__module__.partition(".")[0]
    if library in {"pandas", "polars"} and hasattr(result, "to_numpy"):
        return np.asarray(result.to_numpy())
    if library == "torch":
        return np.asarray(result.detach().numpy()) if result.device.type == "cpu" else None
    if isinstance(result, list) and result:
        try:
            return np.asarray(result)
        except ValueError:  # no rectangle
            return None
    return None


_Reader = Callable[[NDArray[Any], Input, Classes | None, Output, object], None]
_READERS: Final[dict[str, _Reader]] = {
    "predict": _predict,
    "fit_predict": _predict,
    "predict_proba": _predict_proba,
    "predict_log_proba": _predict_log_proba,
    "decision_function": _decision_function,
    "score_samples": _score_samples,
}
