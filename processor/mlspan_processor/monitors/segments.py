"""Stage 6, part 17: which segment each row belongs to, and the newest labelled rows with their segments.

In: blocks of rows with their resources, joined labels. Out: a Sample to cut by. A numeric feature is cut into fifths of
its reference, a categorical one by category, an attribute of the resource and a column that the reference lacks (which
is none of the model's features) by value; of each the first `max_values`
values are told apart, the others are "_OTHER". Work is per block and value, never per row.
Memory: 2 bytes a pending row and segment; 5,000 labelled rows a model version.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import orjson
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from mlspan_processor.model import Model
from mlspan_processor.monitors.performance import Labelled
from mlspan_processor.monitors.rows import task_of
from mlspan_processor.rows import Block
from mlspan_processor.sample import Sample, Segment
from mlspan_processor.scopes import text_of
from mlspan_processor.settings import Segments

MAX_LABELLED: Final = 5_000
MAX_RESOURCES: Final = 4_096
OTHER: Final = "_OTHER"
_PARTS: Final = 5
_NONE: Final = -1


class Values:
    """The values of one segment, numbered as they come."""

    def __init__(self, most: int) -> None:
        self.labels: list[str] = []
        self._index: dict[str, int] = {}
        self._most = most

    def code(self, text: str) -> int:
        """The number of a value."""
        known = self._index.get(text)
        if known is None:
            if len(self.labels) >= self._most:
                text = OTHER
                if OTHER in self._index:
                    return self._index[OTHER]
            known = self._index[text] = len(self.labels)
            self.labels.append(text)
        return known

    def restore(self, labels: Iterable[str]) -> None:
        """Number these values as they were."""
        self.labels = [str(one) for one in labels]
        self._index = {text: i for i, text in enumerate(self.labels)}


class Resources:
    """Attributes of resources, each read once."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self._wanted = tuple(wanted)
        self._known: dict[bytes, tuple[str, ...]] = {}

    def values(self, raw: bytes) -> tuple[str, ...]:
        """The wanted attributes as text, "" where the resource has none."""
        known = self._known.get(raw)
        if known is None:
            if len(self._known) >= MAX_RESOURCES:
                self._known.clear()
            try:
                pairs = {pair.key: text_of(pair.value) for pair in Resource.FromString(raw).attributes}
            except DecodeError:
                pairs = {}
            known = self._known[raw] = tuple(pairs.get(name, "") for name in self._wanted)
        return known


class Segmented:
    """One model version."""

    def __init__(self, settings: Segments) -> None:
        self._features = tuple(settings.features)
        self.names = (*settings.features, *settings.resource)
        self._values = [Values(settings.max_values) for _ in self.names]
        self._parts: deque[tuple[Labelled, NDArray[np.int16]]] = deque()
        self._saved = 0
        self.rows = 0
        self.changes = 0

    def codes(self, model: Model, block: Block, at: NDArray[np.intp], resources: Sequence[tuple[str, ...]]) -> Any:
        """Numbers of the values (n, n_segments) int16 of rows, -1 without one.

        Args:
            model: whose rows.
            block: rows; `at` (n,) those that are meant.
            resources: the wanted attributes of each call's resource.
        """
        codes = np.full((len(at), len(self.names)), _NONE, np.int16)
        where = {name: column for column, name in enumerate(block.schema.names)}
        for k, name in enumerate(self._features):
            column = where.get(name)
            if column is not None:
                is_code = bool(block.schema.categorical[column])
                codes[:, k] = self._of_feature(k, name, model, block.columns[column, at], is_code)
        first = len(self._features)
        if first < len(self.names):
            calls, back = np.unique(block.call[at], return_inverse=True)
            for k in range(first, len(self.names)):
                texts = [resources[call][k - first] for call in calls.tolist()]
                table = [self._values[k].code(text) if text else _NONE for text in texts]
                codes[:, k] = np.array(table, np.int16)[back]
        return codes

    def unsaved(self) -> bytes | None:
        """The values by segment, in the order of their numbers, where there are new ones since the last call."""
        count = sum(len(one.labels) for one in self._values)
        if count == self._saved:
            return None
        self._saved = count
        return orjson.dumps({name: one.labels for name, one in zip(self.names, self._values, strict=True)})

    def restore(self, data: bytes) -> None:
        """Go on with what `unsaved` gave; segments that are not cut by any more are left out."""
        before = orjson.loads(data) if data else {}
        for name, one in zip(self.names, self._values, strict=True):
            one.restore(before.get(name, ()))
        self._saved = sum(len(one.labels) for one in self._values)

    def labelled(self, rows: Labelled, codes: NDArray[np.int16]) -> None:
        """Keep labelled rows; the oldest make way."""
        self._parts.append((rows, codes))
        self.rows += len(rows.labels)
        self.changes += len(rows.labels)
        while self.rows > MAX_LABELLED and len(self._parts) > 1:
            self.rows -= len(self._parts.popleft()[0].labels)

    def sample(self, model: Model, start: int = 0, end: int = 1 << 62) -> Sample | None:
        """The kept rows of predictions made in this time, without features; None without any."""
        parts = list(self._parts)
        if not parts:
            return None
        times = np.concatenate([rows.times for rows, _ in parts])
        chosen = np.flatnonzero((times >= start) & (times < end))[-MAX_LABELLED:]
        if not len(chosen):
            return None
        codes = np.concatenate([one for _, one in parts])[chosen]
        widths = {-1 if rows.scores is None else rows.scores.shape[1] for rows, _ in parts}
        scores = None
        if len(widths) == 1 and -1 not in widths:
            scores = np.concatenate([rows.scores for rows, _ in parts if rows.scores is not None])[chosen]
        return Sample(
            task_of(model),
            (),
            (),
            np.zeros((0, len(chosen)), np.uint32),
            tuple(model.classes[: model.declared]),
            np.concatenate([rows.predictions for rows, _ in parts])[chosen],
            np.concatenate([rows.labels for rows, _ in parts])[chosen],
            scores,
            np.concatenate([rows.weights for rows, _ in parts])[chosen],
            times[chosen],
            {
                name: Segment(codes[:, k].astype(np.int32), tuple(self._values[k].labels))
                for k, name in enumerate(self.names)
            },
        )

    def _of_column(self, k: int, bits: NDArray[np.uint32], is_code: bool) -> NDArray[np.int16]:
        """A column that the reference lacks, by value."""
        found, back = np.unique(bits, return_inverse=True)
        values = found.view(np.float32).tolist()
        table = []
        for code, value in zip(found.tolist(), values, strict=True):
            missing = not code if is_code else math.isnan(value)
            table.append(_NONE if missing else self._values[k].code(f"#{code:08x}" if is_code else f"{value:.6g}"))
        return np.array(table, np.int16)[back]

    def _of_feature(
        self, k: int, name: str, model: Model, bits: NDArray[np.uint32], is_code: bool
    ) -> NDArray[np.int16]:
        reference = model.reference
        if reference is None:  # it is being learnt: how the feature is cut is not known yet
            return np.full(len(bits), _NONE, np.int16)
        feature = next((one for one in reference.profile.features if one.name == name), None)
        if feature is None:
            return self._of_column(k, bits, is_code)
        if feature.codes is not None:
            texts = reference.texts.get(name, {})
            found, back = np.unique(bits, return_inverse=True)
            known = [
                self._values[k].code(texts[code].decode() if code in texts else f"#{code:08x}") if code else _NONE
                for code in found.tolist()
            ]
            return np.array(known, np.int16)[back]
        edges = np.zeros(0, np.float32) if feature.edges is None else np.asarray(feature.edges, np.float32)
        cuts = (
            np.unique(edges[np.linspace(0, len(edges) - 1, _PARTS + 1).astype(np.intp)[1:-1]])
            if len(edges) > 1
            else edges
        )
        values = bits.view(np.float32)
        part = np.searchsorted(cuts, values, "left")
        labels = [_between(cuts, i) for i in range(len(cuts) + 1)]
        table = np.array([self._values[k].code(text) for text in labels], np.int16)
        return np.where(np.isnan(values), np.int16(_NONE), table[np.minimum(part, len(cuts))])


def _between(cuts: NDArray[np.float32], i: int) -> str:
    """A part of a feature's range in words."""
    if not len(cuts):
        return "all"
    if i == 0:
        return f"up to {cuts[0]:.4g}"
    if i == len(cuts):
        return f"above {cuts[-1]:.4g}"
    return f"{cuts[i - 1]:.4g} to {cuts[i]:.4g}"
