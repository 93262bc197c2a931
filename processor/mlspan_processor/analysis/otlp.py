"""Batch, part 1b: model spans from lines of OTLP JSON, as our file exporter and the Collector's write them.

In: a file with one request a line: spans that carry `ml.payload`, and `ml.feedback` log records or spans with labels.
Out: a Source with a column for each captured feature and, in its roles, the answers. Categories come as the codes that
the application sent; their texts are not in spans. Labels join by prediction id, in any order; of several labels for an
id the first stays. One model a file; of its versions all. Memory: the rows, 4 bytes a feature, and the ids as text.
"""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE, SCORE_PROBABILITY
from mlspan.profile import BOOLEAN, CATEGORICAL
from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.roles import CODES
from mlspan_processor.analysis.source import Source, TableSource
from mlspan_processor.decode import Calls, Decoder
from mlspan_processor.feedback import log_labels
from mlspan_processor.lean import parse
from mlspan_processor.outputs import Label, answers_of, outputs_of, truth_of, unpacked
from mlspan_processor.receive.otlp_json import JsonError, to_protobuf
from mlspan_processor.records import Signal
from mlspan_processor.rows import Block, read

_LINES: Final = 500
"""Lines that are decoded together."""
PREDICTION, LABEL, TIME, ID, VERSION, WEIGHT = (
    f"ml.{name}" for name in ("prediction", "label", "time", "id", "model.version", "weight")
)


def open_otlp(path: Path) -> Source:
    """Read a file of OTLP JSON lines.

    Raises:
        AnalysisError: a line is no OTLP, no span carries a payload, or several models' do.
    """
    blocks: list[dict[str, Any]] = []
    models: set[str] = set()
    labels: dict[str, Label] = {}
    decoder = Decoder()
    spans = 0
    for requests in _requests(path, labels):
        calls = Calls()
        for request in requests:
            decoder.collect(parse(request), calls, True)
        spans += len(calls)
        for feedback in calls.feedback:
            labels.setdefault(feedback.prediction_id, feedback.label)
        found, _, _ = read(calls)
        for block in found:
            if block.schema.model is not None and block.prediction_kind != PREDICTION_NONE:
                models.add(block.schema.model[0])
                blocks.append(_columns(block, calls))
    if not blocks:
        why = (
            f"none of its {spans} model spans carries a payload (keep_payload: true keeps it)" if spans else "no spans"
        )
        raise AnalysisError(f'"{path}" holds no rows of a model: {why}')
    if len(models) > 1:
        raise AnalysisError(f'"{path}" holds spans of several models ({", ".join(sorted(models))}); one file a model')
    return _joined(blocks, labels, path.name)


def _requests(path: Path, labels: dict[str, Label]) -> Iterator[list[bytes]]:
    """Trace requests as protobuf, some lines at a time; labels of log requests go to `labels`."""
    opened = gzip.open if path.suffix == ".gz" else open
    waiting: list[bytes] = []
    with opened(path, "rb") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text:
                continue
            try:
                if b'"resourceSpans"' in text:
                    waiting.append(to_protobuf(Signal.TRACES, text))
                elif b'"resourceLogs"' in text:
                    for feedback in log_labels(to_protobuf(Signal.LOGS, text)):
                        labels.setdefault(feedback.prediction_id, feedback.label)
                elif b'"resourceMetrics"' not in text:
                    raise AnalysisError(f'"{path}", line {number}: no OTLP request')
            except (JsonError, DecodeError) as error:
                raise AnalysisError(f'"{path}", line {number}: {error}') from None
            if len(waiting) >= _LINES:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _columns(block: Block, calls: Calls) -> dict[str, Any]:
    """One block's rows as columns; features under ("feature", name, type)."""
    schema = block.schema
    columns: dict[Any, Any] = {
        ("feature", name, kind): block.columns[j]
        for j, (name, kind) in enumerate(zip(schema.names, schema.types, strict=True))
    }
    outputs = outputs_of(block)
    if outputs:
        said, scores, kind = answers_of(block)
        columns |= {("said", name): one for name, one in zip(outputs, unpacked(said, len(outputs)).T, strict=True)}
        if scores is not None and kind == SCORE_PROBABILITY:
            columns |= {("score", name): scores[:, k] for k, name in enumerate(outputs)}
        return columns | _about(block, calls)
    answer = block.predictions[:, 0]
    if block.prediction_kind == PREDICTION_CLASS:
        texts = np.array([*schema.classes, None], object)
        inside = (answer >= 0) & (answer < len(schema.classes))
        columns[PREDICTION] = texts[np.where(inside, answer, len(schema.classes))]
    else:
        columns[PREDICTION] = answer.astype(np.float64)
    if block.score_kind == SCORE_PROBABILITY and block.scores.shape[1]:
        names = schema.classes if block.scores.shape[1] > 1 else schema.classes[-1:]
        columns |= {("score", name): block.scores[:, k] for k, name in enumerate(names)}
    return columns | _about(block, calls)


def _about(block: Block, calls: Calls) -> dict[Any, Any]:
    """When, by which version, for how many rows, and the ids."""
    schema, call = block.schema, block.call
    columns: dict[Any, Any] = {}
    columns[TIME] = np.array(calls.ends, np.int64)[call]
    columns[VERSION] = np.full(len(call), schema.model[1] if schema.model else "", object)
    adjusted = np.array([calls.weights.get(i, 1.0) for i in range(len(calls))])
    columns[WEIGHT] = block.stands_for * adjusted[call]
    ids = np.empty(len(call), object)
    for row, (i, k) in enumerate(zip(call.tolist(), block.number.tolist(), strict=True)):
        own = block.ids.get(row) or calls.ids.get(i)
        ids[row] = own or f"{calls.trace_ids[i].hex()}-{calls.span_ids[i].hex()}-{k}"
    columns[ID] = ids
    return columns


def _joined(blocks: list[dict[Any, Any]], labels: dict[str, Label], name: str) -> Source:
    rows = [len(block[TIME]) for block in blocks]
    keys = list(dict.fromkeys(key for block in blocks for key in block))
    fields, arrays = [], []
    probabilities: list[tuple[str, str]] = []
    said: list[tuple[str, str]] = []
    for key in keys:
        if isinstance(key, tuple) and key[0] == "feature":
            _, column, kind = key
            bits = np.concatenate([b.get(key, _nothing(n, kind)) for b, n in zip(blocks, rows, strict=True)])
            metadata = {CODES: b"1"} if kind == CATEGORICAL else None
            array = pa.array(bits) if kind == CATEGORICAL else _numeric(bits, kind)
            fields.append(pa.field(column, array.type, metadata=metadata))
        elif isinstance(key, tuple):
            role = "prediction" if key[0] == "said" else "score"
            column = f"ml.{role}.{key[1]}"
            gaps = (np.full(n, np.nan, np.float32) for n in rows)
            array = pa.array(np.concatenate([b.get(key, g) for b, g in zip(blocks, gaps, strict=True)]))
            (said if key[0] == "said" else probabilities).append((key[1], column))
            fields.append(pa.field(column, array.type))
        else:
            array = pa.array(np.concatenate([block[key] for block in blocks]), from_pandas=True)
            fields.append(pa.field(key, array.type))
        arrays.append(array)
    if len({field.name for field in fields}) != len(fields):
        raise AnalysisError(f'"{name}": a feature is numeric in some spans and categorical in others')
    truths = [labels.get(key) for block in blocks for key in block[ID].tolist()]
    known = [value for value in truths if value is not None]
    roles: dict[str, Any] = {"prediction": PREDICTION, "time": TIME, "id": ID, "version": VERSION, "weight": WEIGHT}
    roles["probabilities"] = tuple(probabilities)
    if said:
        del roles["prediction"]
        outputs = [output for output, _ in said]
        packed = [_packed(value, outputs) for value in truths]
        for output, column in zip(outputs, unpacked(np.array(packed), len(outputs)).T, strict=True):
            fields.append(pa.field(f"{LABEL}.{output}", pa.float64()))
            arrays.append(pa.array(column, from_pandas=True))
        roles["predictions"] = tuple(said)
        roles["labels"] = tuple((output, f"{LABEL}.{output}") for output in outputs) if known else ()
    elif known:
        numbers = all(isinstance(value, float) for value in known)
        arrays.append(pa.array(truths if numbers else [None if one is None else str(one) for one in truths]))
        fields.append(pa.field(LABEL, arrays[-1].type))
        roles["label"] = LABEL
    return TableSource(pa.table(arrays, schema=pa.schema(fields)), name, roles)


def _packed(label: Label | None, outputs: Sequence[str]) -> float:
    value = np.nan if label is None else truth_of(label, outputs)
    return np.nan if isinstance(value, str) else value


def _nothing(rows: int, kind: str) -> Any:
    return np.zeros(rows, np.uint32) if kind == CATEGORICAL else np.full(rows, np.nan, np.float32).view(np.uint32)


def _numeric(bits: Any, kind: str) -> Any:
    values = np.ascontiguousarray(bits).view(np.float32)
    if kind == BOOLEAN:
        return pa.array(np.nan_to_num(values) != 0, mask=np.isnan(values))
    return pa.array(values)
