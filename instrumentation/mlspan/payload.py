"""Stage 3: rows and answers of one model call as packed bytes, and back.

Writes and reads the value of the span attribute ``ml.payload``: little-endian, versioned, decoded with
``numpy.frombuffer`` and no copy. ``docs/payload.md`` draws the layout; ``tests/golden/`` holds vectors of it.

Layout, version 1 (all sections 4-byte aligned up to the ids)::

    offset size  field
    0      1     magic, 0xA7
    1      1     version, 1
    2      1     prediction kind: 0 none, 1 class index (int32), 2 number (float32)
    3      1     score kind: 0 none, 1 probability, 2 raw score
    4      4     rows of the call (uint32); each captured row stands for call rows / captured rows
    8      2     captured rows
    10     2     columns
    12     2     outputs (columns of predictions)
    14     2     scores (columns of scores)
    16     1     flags: bit 0 row indices present, bit 1 row ids present
    17     3     zero
    20     4*b   bit j of these b = ceil(columns / 32) words: column j holds category codes
    …      4*r*c cells, row-major: float32, or the uint32 code of a category (0: missing)
    …      4*r*o predictions, row-major: int32 class index (-1: not among the classes) or float32
    …      4*r*s scores, row-major: float32
    …      4*r   row indices within the call (uint32), if flagged; else 0, 1, 2, …
    …      …     row ids, if flagged: r lengths (uint16), then the UTF-8 texts (length 0: no id)

A missing number is NaN. Infinities stay. An unknown version or a length that does not fit raises PayloadError.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = 0xA7
VERSION: Final = 1
HEADER: Final = struct.Struct("<BBBBIHHHHBxxx")
MAX_ID_BYTES: Final = 256

PREDICTION_NONE: Final = 0
PREDICTION_CLASS: Final = 1
PREDICTION_NUMBER: Final = 2

SCORE_NONE: Final = 0
SCORE_PROBABILITY: Final = 1
SCORE_RAW: Final = 2

_HAS_INDICES: Final = 1
_HAS_IDS: Final = 2


class PayloadError(ValueError):
    """The bytes are no payload of a known version, or are damaged."""


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """One decoded payload; the arrays are read-only views of the bytes.

    Attributes:
        total_rows: rows in the call.
        cells: (n_rows, n_columns) uint32; view numeric columns as float32.
        categorical: (n_columns,) bool, True where the column holds category codes.
        prediction_kind: PREDICTION_NONE, PREDICTION_CLASS or PREDICTION_NUMBER.
        predictions: (n_rows, n_outputs) int32 class indices or float32 numbers.
        score_kind: SCORE_NONE, SCORE_PROBABILITY or SCORE_RAW.
        scores: (n_rows, n_scores) float32.
        indices: (n_rows,) uint32 row numbers within the call, or None for 0, 1, 2, ….
        ids: the user's ids, or None; an empty text is a row without one.
    """

    total_rows: int
    cells: NDArray[np.uint32]
    categorical: NDArray[np.bool_]
    prediction_kind: int
    predictions: NDArray[Any]
    score_kind: int
    scores: NDArray[np.float32]
    indices: NDArray[np.uint32] | None
    ids: tuple[str, ...] | None


def column_bits(categorical: Sequence[bool]) -> bytes:
    """The bitmap section for these columns; constant per schema, so callers keep it."""
    words = np.zeros((len(categorical) + 31) // 32 * 32, np.uint8)
    words[: len(categorical)] = np.asarray(categorical, bool)
    return np.packbits(words, bitorder="little").tobytes()


def encode(
    total_rows: int,
    cells: NDArray[Any],
    bits: bytes,
    prediction_kind: int = PREDICTION_NONE,
    predictions: NDArray[Any] | None = None,
    score_kind: int = SCORE_NONE,
    scores: NDArray[Any] | None = None,
    indices: NDArray[Any] | None = None,
    ids: Sequence[str] | None = None,
) -> bytes:
    """Pack one call's captured rows.

    Args:
        total_rows: rows of the call, at most 2**32 - 1.
        cells: (n_rows, n_columns), any C-ordered 4-byte dtype in little-endian order.
        bits: ``column_bits`` of the columns.
        prediction_kind: what `predictions` holds.
        predictions: (n_rows, n_outputs) int32 or float32, or None.
        score_kind: what `scores` holds.
        scores: (n_rows, n_scores) float32, or None.
        indices: (n_rows,) uint32 row numbers within the call, or None when all rows are captured.
        ids: n_rows texts ("" for none), each cut to 256 UTF-8 bytes, or None.

    Returns:
        The payload's bytes.
    """
    n_rows, n_columns = cells.shape
    header = HEADER.pack(
        MAGIC,
        VERSION,
        prediction_kind,
        score_kind,
        total_rows,
        n_rows,
        n_columns,
        0 if predictions is None else predictions.shape[1],
        0 if scores is None else scores.shape[1],
        (0 if indices is None else _HAS_INDICES) | (0 if ids is None else _HAS_IDS),
    )
    parts = [header, bits, cells.tobytes()]
    if predictions is not None:
        parts.append(predictions.tobytes())
    if scores is not None:
        parts.append(scores.tobytes())
    if indices is not None:
        parts.append(indices.tobytes())
    if ids is not None:
        texts = [cut_utf8(text) for text in ids]
        parts.append(np.fromiter(map(len, texts), "<u2", len(texts)).tobytes())
        parts.extend(texts)
    return b"".join(parts)


def decode(data: bytes | str) -> Payload:
    """Read one payload, given as bytes or as base64 text.

    Raises:
        PayloadError: no payload, an unknown version, or a wrong length.
    """
    if isinstance(data, str):
        data = from_text(data)
    if len(data) < HEADER.size:
        raise PayloadError(f"payload of {len(data)} bytes is shorter than its header ({HEADER.size} bytes)")
    magic, version, prediction_kind, score_kind, total, rows, columns, outputs, n_scores, flags = HEADER.unpack_from(
        data
    )
    if magic != MAGIC:
        raise PayloadError(f"payload begins with 0x{magic:02x}, not 0x{MAGIC:02x}")
    if version != VERSION:
        raise PayloadError(f"payload version {version} is unknown; this release reads version {VERSION}")
    if prediction_kind > PREDICTION_NUMBER or score_kind > SCORE_RAW or flags > (_HAS_INDICES | _HAS_IDS):
        raise PayloadError("payload header holds an unknown kind or flag")
    if total < rows or (rows and outputs and not prediction_kind) or (rows and n_scores and not score_kind):
        raise PayloadError("payload header contradicts itself")
    at = HEADER.size
    words = (columns + 31) // 32
    fixed = at + 4 * (words + rows * (columns + outputs + n_scores) + (rows if flags & _HAS_INDICES else 0))
    if len(data) < fixed or (not flags & _HAS_IDS and len(data) != fixed):
        raise PayloadError(f"payload of {len(data)} bytes does not hold the {fixed} bytes its header announces")
    categorical = np.unpackbits(np.frombuffer(data, np.uint8, 4 * words, at), bitorder="little")[:columns].astype(bool)
    at += 4 * words
    cells = np.frombuffer(data, "<u4", rows * columns, at).reshape(rows, columns)
    at += 4 * rows * columns
    dtype = "<i4" if prediction_kind == PREDICTION_CLASS else "<f4"
    predictions = np.frombuffer(data, dtype, rows * outputs, at).reshape(rows, outputs)
    at += 4 * rows * outputs
    scores = np.frombuffer(data, "<f4", rows * n_scores, at).reshape(rows, n_scores)
    at += 4 * rows * n_scores
    indices = None
    if flags & _HAS_INDICES:
        indices = np.frombuffer(data, "<u4", rows, at)
        at += 4 * rows
    ids = _read_ids(data, at, rows) if flags & _HAS_IDS else None
    return Payload(total, cells, categorical, prediction_kind, predictions, score_kind, scores, indices, ids)


def to_text(data: bytes) -> str:
    """The payload as base64 text, for OpenTelemetry APIs older than 1.45, whose spans carry no bytes."""
    return base64.b64encode(data).decode("ascii")


def from_text(text: str) -> bytes:
    """The bytes of base64 text.

    Raises:
        PayloadError: the text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PayloadError(f"payload text is not base64: {error}") from None


def category_code(text: str, key: bytes) -> int:
    """The code of a category in a payload's cells: 1 … 2**32 - 1.

    The first four bytes of a keyed BLAKE2b hash (RFC 7693) of the UTF-8 text, little-endian; 0, which means missing,
    becomes 1. Lone surrogates become "?". A key longer than BLAKE2b's 64 bytes is hashed first.

    >>> category_code("UA", b"mlspan")
    1116133425
    """
    if len(key) > blake2b.MAX_KEY_SIZE:
        key = blake2b(key).digest()
    raw = text.encode("utf-8", "replace")
    return int.from_bytes(blake2b(raw, digest_size=4, key=key).digest(), "little") or 1


def cut_utf8(text: str) -> bytes:
    """UTF-8 of the text, cut to MAX_ID_BYTES at a character's boundary; lone surrogates become "?"."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= MAX_ID_BYTES:
        return raw
    return raw[:MAX_ID_BYTES].decode("utf-8", "ignore").encode()


def _read_ids(data: bytes, at: int, rows: int) -> tuple[str, ...]:
    if len(data) < at + 2 * rows:
        raise PayloadError("payload ends within its row ids")
    ends = at + 2 * rows + np.cumsum(np.frombuffer(data, "<u2", rows, at), dtype=np.int64)
    if len(data) != (int(ends[-1]) if rows else at):
        raise PayloadError("payload's row ids do not fill it")
    ids = []
    start = at + 2 * rows
    try:
        for end in ends.tolist():
            ids.append(str(data[start:end], "utf-8"))
            start = end
    except UnicodeDecodeError as error:
        raise PayloadError(f"payload's row ids are not UTF-8: {error}") from None
    return tuple(ids)
