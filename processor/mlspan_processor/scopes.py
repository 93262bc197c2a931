"""Stage 2, part 1: the instrumentation scope, which says once per batch what model and which columns its
spans have.

In: raw InstrumentationScope bytes. Out: a Schema, the same object for the same bytes. Bounded: 4,096 scopes
and 32 MiB of them, the oldest forgotten first.
"""

from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope

from mlspan.profile import CATEGORICAL, TYPES
from mlspan.semconv import attributes as names

MAX_SCOPES: Final = 4096
MAX_SCOPE_BYTES: Final = 32 * 1024 * 1024
"""Of the raw scopes that are remembered: a thousand models of a thousand features. Decoded they take seven times as
much, with what the summary writes before each value."""
_TYPES: Final = {kind: kind for kind in TYPES}


class Schema:
    """A model version and the columns that one of its tracers captures; compared by identity.

    Attributes:
        model: (name, version); None when the scope names no model.
        task: ml.model.task, "" unknown.
        classes: texts of the classes, () for none.
        outputs: names of a multilabel model's outputs, () for none.
        names, types: of the payload's columns.
        categorical: (n_columns,) bool, as the payload's bitmap must say.
        shown: what the summary writes before each column's value; made by enrich.py.
    """

    __slots__ = ("__weakref__", "categorical", "classes", "model", "names", "outputs", "shown", "task", "types")
    shown: tuple[NDArray[Any], NDArray[Any]] | None

    def __init__(
        self,
        model: tuple[str, str] | None,
        task: str = "",
        classes: tuple[str, ...] = (),
        columns: tuple[str, ...] = (),
        types: tuple[str, ...] = (),
        outputs: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self.task = task
        self.classes = classes
        self.names = columns
        self.types = types
        self.outputs = outputs
        self.shown = None
        self.categorical = np.array([kind == CATEGORICAL for kind in types], bool)


class Schemas:
    """Scope bytes to Schema, each decoded once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Schema] = {}
        self._bytes = 0

    def get(self, scope: bytes) -> Schema:
        """The scope's schema; its `model` is None for scopes that are not a model's."""
        schema = self._known.get(scope)
        if schema is None:
            schema = _decode(scope)
            self._known[scope] = schema
            self._bytes += len(scope)
            while len(self._known) > 1 and (len(self._known) > MAX_SCOPES or self._bytes > MAX_SCOPE_BYTES):
                oldest = next(iter(self._known))
                self._bytes -= len(oldest)
                del self._known[oldest]
        return schema


def text_of(value: AnyValue) -> str:
    """A scalar value as text, "" for anything else."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return str(value.bool_value)
    if kind == "int_value":
        return str(value.int_value)
    if kind == "double_value":
        return str(value.double_value)
    return ""


def _decode(raw: bytes) -> Schema:
    if b"ml.model.name" not in raw:
        return Schema(None)
    try:
        scope = InstrumentationScope.FromString(raw)
    except DecodeError:
        return Schema(None)
    values = {pair.key: pair.value for pair in scope.attributes}
    model = text_of(values.get(names.ML_MODEL_NAME, AnyValue()))
    if not model:
        return Schema(None)

    def texts(key: str) -> tuple[str, ...]:
        return tuple(text_of(item) for item in values.get(key, AnyValue()).array_value.values)

    columns = texts(names.ML_FEATURE_NAMES)
    types = tuple(_TYPES.get(kind, kind) for kind in texts(names.ML_FEATURE_TYPES))
    if len(columns) != len(types) or not set(types) <= set(TYPES):
        columns = types = ()  # its payloads then do not fit and count as damaged
    return Schema(
        (model, text_of(values.get(names.ML_MODEL_VERSION, AnyValue()))),
        text_of(values.get(names.ML_MODEL_TASK, AnyValue())),
        texts(names.ML_PREDICTION_CLASSES),
        columns,
        types,
        texts(names.ML_PREDICTION_OUTPUTS),
    )
