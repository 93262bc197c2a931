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
MAX_BYTES: Final = 512
TOP_FEATURES: Final = 3
_SUMMARY: Final = key_prefix(names.ML_INPUT_SUMMARY)
_SCORE: Final = np.frombuffer(double_prefix(names.ML_ANOMALY_SCORE), np.uint8)
_FEATURES: Final = key_prefix(names.ML_ANOMALY_FEATURES)
FLAG: Final = {value: bool_attribute(names.ML_ANOMALY_FLAG, value) for value in (False, True)}
_HEADERS: Final = [text_attribute(_SUMMARY, b" " * n)[: -n or None] for n in range(MAX_BYTES + 1)]
_MISSING: Final = b"null"
_END: Final = b"\0"


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
    n_columns = len(schema.names)
    if not n_columns:
        return [_HEADERS[0]] * len(block.firsts)
    bits = block.columns if block.n_rows == len(block.firsts) else block.columns[:, block.firsts]
    order = _order(schema, reference, costs, n_columns)
    if order is None:
        shown = min(n_columns, MAX_FEATURES)
        chosen = np.ascontiguousarray(bits[:shown].T)
    else:
        chosen = np.take_along_axis(bits, order, axis=0).T.copy()
    n, shown = chosen.shape
    table = np.empty((n, 2 * shown + 1), object)
    labels = _labels(schema)
    table[:, 0:-1:2] = labels[:shown] if order is None else labels[order.T]
    values = np.array(_numbers(chosen.view(np.float32)), object).reshape(n, shown)
    for column in np.flatnonzero(schema.categorical[:shown] if order is None else schema.categorical).tolist():
        texts = {} if reference is None else reference.texts.get(schema.names[column], {})
        if order is None:
            values[:, column] = _categories(chosen[:, column], texts)
        else:
            at = np.nonzero(column == order.T)
            values[at] = _categories(chosen[at], texts)
    table[:, 1::2] = values
    table[:, -1] = _END
    return [_attribute(text) for text in b"".join(table.ravel().tolist()).split(_END)[:-1]]


def _order(
    schema: Schema, reference: Reference | None, costs: NDArray[np.float32] | None, n_columns: int
) -> NDArray[np.intp] | None:
    """The columns to show (MAX_FEATURES, n_calls), the most unusual first; None for the first columns as they
    are."""
    if n_columns <= MAX_FEATURES or reference is None or costs is None:
        return None
    columns = reference.binding(schema).columns
    if len(columns) < MAX_FEATURES:
        return None
    top = np.argpartition(-costs.T, MAX_FEATURES - 1, axis=1)[:, :MAX_FEATURES]
    ranks = np.argsort(-np.take_along_axis(costs.T, top, axis=1), axis=1, kind="stable")
    return columns[np.take_along_axis(top, ranks, axis=1)].T


def _labels(schema: Schema) -> NDArray[Any]:
    """ " name=" of every column."""
    if schema.shown is None:
        texts = [b" " + name.encode("utf-8", "replace").replace(_END, b"") + b"=" for name in schema.names]
        schema.shown = np.array(texts, object)
    return schema.shown


def _numbers(values: NDArray[np.float32]) -> list[bytes]:
    """Every number as text, row by row."""
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    flat = text[2:-2].replace(b"],[", b",") + b","
    return flat.replace(b".0,", b",").split(b",")[:-1]


def _categories(codes: NDArray[np.uint32], texts: dict[int, bytes]) -> list[bytes]:
    return [texts.get(code) or (b"#%08x" % code if code else _MISSING) for code in codes.tolist()]


def _attribute(text: bytes) -> bytes:
    text = text[1:]
    if len(text) > MAX_BYTES:
        cut = text[: MAX_BYTES + 1].rfind(b" ")
        text = text[:cut] if cut > 0 else text[:MAX_BYTES].decode("utf-8", "ignore").encode()
    return _HEADERS[len(text)] + text
