"""Stage 3: from rows and their costs to what people and tail sampling read on the span.

In: the first captured row of each call, the calls' anomaly scores. Out: ready KeyValue bytes, one a span:
    ml.input.summary ("name=value …", at most 16 features and 512 bytes; all of them where there are few, else
    the most unusual first), ml.anomaly.score, ml.anomaly.flag, ml.anomaly.features (flagged calls only, at
    most three). Categories are readable where the profile knows them, else "#" and the eight hexadecimal
    digits of their code; missing values are "null". The texts of a
whole batch are made in one pass: numbers by orjson (shortest decimals that give the same float32), then one
    join.
"""

from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from mlspan.profile import Anomaly, tail_of
from mlspan.semconv import attributes as names
from mlspan_processor.cells import Reference
from mlspan_processor.lean import bool_attribute, double_prefix, key_prefix, text_attribute, texts_attribute
from mlspan_processor.rows import Block
from mlspan_processor.scopes import Schema

MAX_FEATURES: Final = 16
MOST_UNUSUAL: Final = 8
MAX_BYTES: Final = 512
TOP_FEATURES: Final = 3
_SUMMARY: Final = key_prefix(names.ML_INPUT_SUMMARY)
_SCORE: Final = np.frombuffer(double_prefix(names.ML_ANOMALY_SCORE), np.uint8)
_FEATURES: Final = key_prefix(names.ML_ANOMALY_FEATURES)
FLAG: Final = {value: bool_attribute(names.ML_ANOMALY_FLAG, value) for value in (False, True)}
_HEADERS: Final = [text_attribute(_SUMMARY, b" " * n)[: -n or None] for n in range(MAX_BYTES + 1)]
_MISSING: Final = b"null"
_END: Final = b"\0"
_NOTHING: Final[dict[int, bytes]] = {}


def anomaly_scores(anomaly: Anomaly, sums: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[np.float64]:
    """1 - p of each call (n_calls,), where p is Bonferroni's over its rows: min(1, n min p).

    Args:
        anomaly: of the reference.
        sums: (n_rows,) costs of the rows.
        firsts: (n_calls,) each call's first row.
    """
    rows = np.diff(firsts, append=len(sums))
    smallest = np.minimum.reduceat(tail_of(anomaly, sums), firsts)
    scores: NDArray[np.float64] = 1.0 - np.minimum(1.0, smallest * rows)
    return scores


def score_attributes(scores: NDArray[np.float64]) -> list[bytes]:
    """One ml.anomaly.score a call."""
    table = np.empty((len(scores), len(_SCORE) + 8), np.uint8)
    table[:, : len(_SCORE)] = _SCORE
    table[:, len(_SCORE) :] = scores.astype("<f8").view(np.uint8).reshape(-1, 8)
    attributes: list[bytes] = table.view(f"V{table.shape[1]}").ravel().tolist()
    return attributes


def features_attribute(reference: Reference, features: list[int], costs: NDArray[np.float32]) -> bytes:
    """ml.anomaly.features of one row, from the costs (n_bound_features,) of these features."""
    top = np.argsort(-costs, kind="stable")[:TOP_FEATURES].tolist()
    texts = [reference.features[features[i]].name.encode("utf-8", "replace") for i in top if costs[i] > 0]
    return texts_attribute(_FEATURES, texts)


def summaries(block: Block, reference: Reference | None, costs: NDArray[np.float32] | None) -> list[bytes]:
    """One ml.input.summary a call.

    Args:
        block: the rows.
        reference: for readable categories, or None.
        costs: (n_bound_features, n_calls) of the calls' first rows, or None.
    """
    schema = block.schema
    n, n_columns = len(block.firsts), len(schema.names)
    if not n_columns:
        return [_HEADERS[0]] * n
    bits = block.columns if block.n_rows == n else block.columns[:, block.firsts]
    order = _order(schema, reference, costs, n_columns)
    if order is None:
        chosen = bits[: min(n_columns, MAX_FEATURES)]
        columns = np.broadcast_to(np.arange(len(chosen))[:, None], chosen.shape)
    else:
        chosen = np.take_along_axis(bits, order, axis=0)
        columns = order
    shown = len(chosen)
    values = _numbers(np.ascontiguousarray(chosen).view(np.float32))
    if schema.categorical.any():
        _put_categories(values, chosen.ravel(), columns.ravel(), schema, reference)
    first, others = _labels(schema)
    # name=, value, name=, value, …, end: one list for all calls, filled column by column, joined at once.
    width = 2 * shown + 1
    tokens: list[bytes] = [_END] * (n * width)
    for j in range(shown):
        names_of = others if j else first
        tokens[2 * j :: width] = [names_of[j]] * n if order is None else names_of[order[j]].tolist()
        tokens[2 * j + 1 :: width] = values[j * n : (j + 1) * n]
    return [
        _HEADERS[len(text)] + text if len(text) <= MAX_BYTES else _cut(text)
        for text in b"".join(tokens).split(_END)[:-1]
    ]


def _order(
    schema: Schema, reference: Reference | None, costs: NDArray[np.float32] | None, n_columns: int
) -> NDArray[np.intp] | None:
    """The columns to show (MOST_UNUSUAL, n_calls), the most unusual first; None for the first columns as they
    are."""
    if n_columns <= MAX_FEATURES or reference is None or costs is None:
        return None
    columns = reference.binding(schema).columns
    if len(columns) < MAX_FEATURES:
        return None
    by_call = np.ascontiguousarray(-costs.T)
    top = np.argpartition(by_call, MOST_UNUSUAL - 1, axis=1)[:, :MOST_UNUSUAL]
    calls = np.arange(len(by_call))[:, None]
    ranks = np.argsort(by_call[calls, top], axis=1)
    return np.ascontiguousarray(columns[top[calls, ranks]].T)


def _labels(schema: Schema) -> tuple[NDArray[Any], NDArray[Any]]:
    """ "name=" of every column, and " name="."""
    if schema.shown is None:
        texts = [name.encode("utf-8", "replace").replace(_END, b"") + b"=" for name in schema.names]
        schema.shown = np.array(texts, object), np.array([b" " + text for text in texts], object)
    return schema.shown


def _numbers(values: NDArray[np.float32]) -> list[bytes]:
    """Every number of (n_shown, n_calls) as text, one after another."""
    text = orjson.dumps(values.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
    return (text[1:-1] + b",").replace(b".0,", b",").split(b",")[:-1]


def _put_categories(
    values: list[bytes],
    bits: NDArray[np.uint32],
    columns: NDArray[np.intp],
    schema: Schema,
    reference: Reference | None,
) -> None:
    """Replace the numbers of categorical columns by their texts."""
    texts = {} if reference is None else reference.texts
    readable = [texts.get(name, _NOTHING) for name in schema.names]
    at = np.flatnonzero(schema.categorical[columns])
    for i, code, column in zip(at.tolist(), bits[at].tolist(), columns[at].tolist(), strict=True):
        values[i] = readable[column].get(code) or (b"#%08x" % code if code else _MISSING)


def _cut(text: bytes) -> bytes:
    """The attribute of a text that is too long: as many whole features as fit."""
    end = text[: MAX_BYTES + 1].rfind(b" ")
    text = text[:end] if end > 0 else text[:MAX_BYTES].decode("utf-8", "ignore").encode()
    return _HEADERS[len(text)] + text
