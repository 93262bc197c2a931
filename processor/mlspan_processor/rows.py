"""Stage 2, part 3: payloads of many calls to arrays of rows.

In: the payload groups of a Calls. Out: one Block for every schema and kind of answer, columns first, ready
for per-column work; and the calls whose payload cannot be read. Payloads of equal length and header (one-row
calls of one schema: nearly all) are joined and viewed as one 2-D array; the others are read one by one.
Memory: the payloads once more, transposed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from mlspan import payload
from mlspan.payload import HEADER, PREDICTION_CLASS, Payload, PayloadError
from mlspan_processor.decode import Calls, PayloadGroup
from mlspan_processor.scopes import Schema


@dataclass(slots=True, eq=False)
class Block:
    """Captured rows of calls with one schema and one shape of answer.

    Attributes:
        schema: the columns' names and types.
        columns: (n_columns, n_rows) uint32 bits.
        call: (n_rows,) index of each row's call.
        firsts: (n_calls,) each call's first row; a call's rows are neighbours.
        number: (n_rows,) uint32 the row's number within its call.
        stands_for: (n_rows,) rows of the call that each captured row stands for.
        prediction_kind: as in a payload.
        predictions: (n_rows, n_outputs) int32 or float32.
        score_kind: as in a payload.
        scores: (n_rows, n_scores) float32.
        ids: the rows' own ids by row; rows without one are absent.
    """

    schema: Schema
    columns: NDArray[np.uint32]
    call: NDArray[np.intp]
    firsts: NDArray[np.intp]
    number: NDArray[np.uint32]
    stands_for: NDArray[np.float64]
    prediction_kind: int
    predictions: NDArray[Any]
    score_kind: int
    scores: NDArray[np.float32]
    ids: dict[int, str]

    @property
    def n_rows(self) -> int:
        """Captured rows."""
        return len(self.call)


def read(calls: Calls) -> tuple[list[Block], list[int], dict[int, int]]:
    """Read all payloads.

    Returns:
        The blocks; the calls with a payload that is damaged, of an unknown version or not of its schema; rows
        of the calls that captured none, by call.
    """
    parts: dict[tuple[Any, ...], list[Block]] = {}
    damaged: list[int] = []
    empty: dict[int, int] = {}
    for group in _regrouped(calls, damaged):
        try:
            blocks = [_read_group(group)]
        except PayloadError:
            blocks = []
            for value, call in zip(group.values, group.calls, strict=True):
                try:
                    blocks.append(_read_one(group.schema, value[group.at :], call))
                except PayloadError:
                    damaged.append(call)
        for block in blocks:
            if isinstance(block, dict):
                empty.update(block)
                continue
            shape = (
                block.prediction_kind,
                block.predictions.shape[1],
                block.score_kind,
                block.scores.shape[1],
            )
            parts.setdefault((block.schema, *shape), []).append(block)
    return [_joined(blocks) for blocks in parts.values()], damaged, empty


def _regrouped(calls: Calls, damaged: list[int]) -> list[PayloadGroup]:
    """The groups, with payloads that came as text or in an unusual encoding unpacked and grouped anew."""
    groups = []
    unpacked: dict[tuple[Schema, int, bytes], PayloadGroup] = {}
    for group in calls.groups.values():
        first = group.values[0]
        # All values of a group share the bytes before the payload's header: one look is enough.
        if _framed(first, group.at):
            groups.append(group)
            continue
        for value, call in zip(group.values, group.calls, strict=True):
            try:
                body = _body(value)
            except PayloadError:
                damaged.append(call)
                continue
            key = (group.schema, len(body), body[: HEADER.size])
            again = unpacked.get(key)
            if again is None:
                again = unpacked[key] = PayloadGroup(group.schema, 0)
                groups.append(again)
            again.values.append(body)
            again.calls.append(call)
    return groups


def _framed(value: bytes, at: int) -> bool:
    """Whether the value is a KeyValue whose bytes value begins at `at`."""
    try:
        return KeyValue.FromString(value).value.bytes_value == value[at:]
    except DecodeError:
        return False


def _body(value: bytes) -> bytes:
    try:
        any_value = KeyValue.FromString(value).value
    except DecodeError as error:
        raise PayloadError(str(error)) from None
    if any_value.WhichOneof("value") == "string_value":
        return payload.from_text(any_value.string_value)
    return any_value.bytes_value


def _read_group(group: PayloadGroup) -> "Block | dict[int, int]":
    """All payloads of a group as one array; the group's header says how each is laid out."""
    at, values = group.at, group.values
    first = payload.decode(values[0][at:])
    _check(first, group.schema)
    rows, n_columns = first.cells.shape
    if not rows:
        return dict.fromkeys(group.calls, first.total_rows)
    if len(values) == 1 or (first.ids is not None and rows > 1):
        if len(values) == 1:
            return _block(group.schema, first, group.calls[0])
        raise PayloadError("ids of several rows a call are read one by one")
    n = len(values)
    table = np.frombuffer(b"".join(values), np.uint8).reshape(n, -1)
    outputs, n_scores = first.predictions.shape[1], first.scores.shape[1]
    at += HEADER.size
    bits = 4 * ((n_columns + 31) // 32)
    if not (table[:, at : at + bits] == table[0, at : at + bits]).all():
        raise PayloadError("columns of other types")
    at += bits

    def section(width: int, dtype: str) -> NDArray[Any]:
        nonlocal at
        start, at = at, at + 4 * rows * width
        return np.ascontiguousarray(table[:, start:at]).view(dtype).reshape(n * rows, width)

    cells = section(n_columns, "<u4")
    predictions = section(outputs, "<i4" if first.prediction_kind == PREDICTION_CLASS else "<f4")
    scores = section(n_scores, "<f4")
    number = np.tile(np.arange(rows, dtype=np.uint32), n)
    if first.indices is not None:
        number = section(1, "<u4").reshape(-1)
    ids = {}
    if first.ids is not None:
        at += 2  # the one length, known from the payload's own
        ids = {i: text for i, value in enumerate(values) if (text := value[at:].decode("utf-8", "replace"))}
    return Block(
        group.schema,
        np.ascontiguousarray(cells.T),
        np.repeat(np.array(group.calls, np.intp), rows),
        np.arange(0, n * rows, rows),
        number,
        np.full(n * rows, first.total_rows / rows),
        first.prediction_kind,
        predictions,
        first.score_kind,
        scores,
        ids,
    )


def _read_one(schema: Schema, data: bytes, call: int) -> "Block | dict[int, int]":
    decoded = payload.decode(data)
    _check(decoded, schema)
    return _block(schema, decoded, call) if len(decoded.cells) else {call: decoded.total_rows}


def _block(schema: Schema, decoded: Payload, call: int) -> Block:
    rows = len(decoded.cells)
    return Block(
        schema,
        np.ascontiguousarray(decoded.cells.T),
        np.full(rows, call, np.intp),
        np.zeros(1, np.intp),
        np.arange(rows, dtype=np.uint32) if decoded.indices is None else decoded.indices,
        np.full(rows, decoded.total_rows / rows),
        decoded.prediction_kind,
        decoded.predictions,
        decoded.score_kind,
        decoded.scores,
        {i: text for i, text in enumerate(decoded.ids or ()) if text},
    )


def _check(decoded: Payload, schema: Schema) -> None:
    if not np.array_equal(decoded.categorical, schema.categorical):
        raise PayloadError("payload's columns are not those of its scope")


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    starts = np.cumsum([0, *(block.n_rows for block in blocks)]).tolist()
    ids = {at + i: text for at, block in zip(starts, blocks, strict=False) for i, text in block.ids.items()}
    first = blocks[0]
    return Block(
        first.schema,
        np.concatenate([block.columns for block in blocks], axis=1),
        np.concatenate([block.call for block in blocks]),
        np.concatenate([block.firsts + at for at, block in zip(starts, blocks, strict=False)]),
        np.concatenate([block.number for block in blocks]),
        np.concatenate([block.stands_for for block in blocks]),
        first.prediction_kind,
        np.concatenate([block.predictions for block in blocks]),
        first.score_kind,
        np.concatenate([block.scores for block in blocks]),
        ids,
    )
