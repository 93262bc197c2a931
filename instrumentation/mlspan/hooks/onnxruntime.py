"""Stage 1, ONNX Runtime: calls of an ``InferenceSession`` from the user's own code.

A session knows the names, types and shapes of its inputs and outputs, and nothing of what they mean: that is read from
the first outputs as common exporters name and shape them (skl2onnx, onnxmltools, torch.onnx), where it can be.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.capture import Input
from mlspan.hooks.native import NativeInstrumentor
from mlspan.hooks.native_calls import Asked, Library
from mlspan.inputs.feeds import open_feed
from mlspan.inputs.tensors import Unreadable
from mlspan.meanings import Found, Meaning, as_values, picked
from mlspan.models import Registration, registration
from mlspan.tensor_answers import FIRST_KEYS

MAX_HASHED: Final = 64 << 20
"""Bytes of a model that are hashed: of a larger one, evenly spread blocks."""
_BLOCK: Final = 1 << 20
_METADATA: Final = ("producer_name", "graph_name", "domain", "version", "custom_metadata_map")


class OnnxRuntime(Library):
    """See the module."""

    name = "onnxruntime"
    dependencies = tuple(
        f"{distribution} >= 1.19"
        for distribution in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
    )
    predicts = ("run", "run_with_iobinding", "run_with_ort_values")

    def owner(self, module: Any) -> type:
        """The session."""
        found: type = module.InferenceSession
        return found

    def ask(self, method: str, model: Any, given: Mapping[str, Any]) -> Asked | None:
        """What is fed to the session; of values that may be on a device only how many rows there are."""
        if method == "run":
            names = given.get("output_names") or [output.name for output in model.get_outputs()]
            told = registration(model)
            kind = None if told is None else told.input
            X = open_feed(given.get("input_feed"), kind, told is not None and told.feature_names is not None)
            return Asked(X, names=tuple(names))
        bound = given.get("iobinding")
        counted = Unreadable(f"unsupported input: {'OrtValue' if bound is None else 'IOBinding'}", 0)
        counted.columns = _columns(model)
        if bound is not None:
            return Asked(counted, False, rows=lambda: _rows(bound.get_outputs()))
        counted.rows = _rows(list((given.get("input_dict_ort_values") or {}).values()))
        return Asked(counted, False)

    def describe(self, model: Any, told: Registration | None) -> tuple[Meaning, tuple[str, ...] | None]:  # noqa: ARG002
        """As the user says, or the first outputs."""
        return Meaning("InferenceSession", told, is_guessed=True), None

    def identity(self, model: Any) -> object:
        """The model's bytes, as far as they can be had, and what it says of itself."""
        about = model.get_modelmeta()
        ends = [(end.name, end.type, list(map(str, end.shape))) for end in (*model.get_inputs(), *model.get_outputs())]
        told = {name: str(getattr(about, name, "")) for name in _METADATA if name != "custom_metadata_map"}
        custom = dict(getattr(about, "custom_metadata_map", None) or {})
        return {"ends": ends, "told": told, "custom": custom, "bytes": _digest(model)}

    def find(self, asked: Asked, result: Any, captured: Input) -> Found | None:
        """A number or a row of numbers, a class, or a dictionary of probabilities by class, for each row."""
        if not isinstance(result, (list, tuple)) or len(result) != len(asked.names):
            return None
        numbers: dict[str, NDArray[Any]] = {}
        labels: list[NDArray[Any]] = []
        maps: list[list[Any]] = []
        for name, part in zip(asked.names, result, strict=True):
            if isinstance(part, list):
                if part and isinstance(part[0], dict):
                    maps.append(part)
            elif isinstance(part, np.ndarray) and part.ndim in {1, 2} and part.size:
                if part.dtype.kind == "f":
                    numbers[name] = part
                elif part.dtype.kind in "iuOUST" and part.size == len(part):
                    labels.append(part.reshape(-1))
        label = picked(labels[0], captured) if len(labels) == 1 else None
        if len(maps) == 1:
            return _from_maps(maps[0], label, captured)
        answer = _answer_name(numbers)
        values = None if answer is None else as_values(numbers[answer], captured)
        if values is None and label is not None and label.dtype.kind in "iu" and not numbers:
            values = label.reshape(-1, 1)
        return None if values is None and label is None else Found(values, label, None, answer or "")


class OnnxRuntimeInstrumentor(NativeInstrumentor):
    """Makes every run of an `onnxruntime.InferenceSession` a span."""

    library = OnnxRuntime()


def _answer_name(numbers: Mapping[str, NDArray[Any]]) -> str | None:
    """Which of several outputs is the answer; None where that cannot be known."""
    if len(numbers) == 1:
        return next(iter(numbers))
    return next((name for name in FIRST_KEYS if name in numbers), None)


def _from_maps(maps: list[Any], labels: NDArray[Any] | None, captured: Input) -> Found | None:
    """Classifiers that answer {class: probability} for each row; only the captured rows are read."""
    rows = picked(np.arange(len(maps)), captured)
    keys = list(maps[0])
    if rows is None or not keys:
        return None
    values = np.array([[maps[row][key] for key in keys] for row in rows.tolist()], np.float64)
    return Found(values, labels, tuple(map(str, keys)))


def _rows(values: Any) -> int:
    """Rows of the first of these OrtValues; 0: unknown."""
    for value in values:
        shape = value.shape() if value.is_tensor() else ()
        if shape:
            return int(shape[0])
    return 0


def _columns(model: Any) -> int:
    """Columns of all matrices that the model takes; 0: unknown."""
    widths = [end.shape[1] for end in model.get_inputs() if len(end.shape) == 2]
    return sum(width for width in widths if isinstance(width, int))


def _digest(model: Any) -> str | None:
    """Of the bytes that the session was made from; None where they are not to be had any more."""
    data, path = getattr(model, "_model_bytes", None), getattr(model, "_model_path", None)
    if isinstance(data, bytes):
        return _spread(len(data), lambda start: data[start : start + _BLOCK])
    if not isinstance(path, str):
        return None
    try:
        with Path(path).open("rb") as file:

            def read(start: int) -> bytes:
                file.seek(start)
                return file.read(_BLOCK)

            return _spread(Path(path).stat().st_size, read)
    except OSError:
        return None


def _spread(size: int, read: Callable[[int], bytes]) -> str:
    hasher = blake2b(str(size).encode(), digest_size=16)
    blocks = -(-size // _BLOCK)
    most = MAX_HASHED // _BLOCK
    for at in range(min(blocks, most)):
        hasher.update(read(at * blocks // min(blocks, most) * _BLOCK))
    return hasher.hexdigest()
