"""Whatever holds the rows, the result is the same."""

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sklearn import metrics

from mlspan.payload import category_code
from mlspan_exporters.otlp_json import to_json
from mlspan_processor import Analysis, analyze
from mlspan_processor.analysis import AnalysisError, source
from mlspan_processor.model_spans import ModelSpans, feedback_logs, prediction_id
from mlspan_processor.records import Chunk, Signal
from tests.processor.analysis.frames import classified


@pytest.fixture(scope="module")
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A reference and a current file of every kind of column, the second shifted."""
    rng = np.random.default_rng(0)
    both = classified(rng, 800), classified(rng, 600, shift=1.0)
    for frame in both:
        frame["flag"] = rng.random(len(frame)) < 0.3
        frame["count"] = rng.integers(0, 50, len(frame))
        frame.loc[::10, "x2"] = np.nan
        frame.loc[::7, "kind"] = None
    return both


def result_of(reference: Any, current: Any, **options: Any) -> Analysis:
    """The analysis of the frames, in whatever form."""
    return analyze(reference=reference, current=current, probability="p", label="y", segment="kind", **options)


def judged(result: Analysis) -> Any:
    """All but the files' names."""
    return result.to_dict()["windows"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".tsv"])
def test_files(frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, suffix: str) -> None:
    """Parquet, CSV and TSV, compressed or not, give what frames give."""
    paths = []
    for name, frame in zip(("reference", "current"), frames, strict=True):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
        paths.append(path)
    assert judged(result_of(*paths)) == judged(result_of(*frames))


@pytest.mark.parametrize("form", ["polars", "arrow", "batch", "mapping", "lazy", "categories", "nullable"])
def test_frames(frames: tuple[pd.DataFrame, pd.DataFrame], form: str) -> None:
    """polars, pyarrow, mappings of columns, and pandas' other types give what plain pandas gives."""
    nullable = {"x2": "Float64", "flag": "boolean", "count": "Int64", "kind": "string"}
    forms: dict[str, Any] = {
        "polars": pl.from_pandas,
        "lazy": lambda frame: pl.from_pandas(frame).lazy(),
        "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
        "batch": lambda frame: pa.RecordBatch.from_pandas(frame, preserve_index=False),
        "mapping": lambda frame: {name: frame[name].to_numpy() for name in frame},
        "categories": lambda frame: frame.astype({"kind": "category"}),
        "nullable": lambda frame: frame.astype(nullable),
    }
    converted = [forms[form](frame) for frame in frames]
    assert judged(result_of(*converted)) == judged(result_of(*frames))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".csv", {"sep": ";"}),
        (".csv", {"sep": ";", "decimal": ","}),
        (".csv.gz", {"sep": ";", "decimal": ",", "quoting": csv.QUOTE_ALL}),
        (".csv", {"sep": "|", "lineterminator": "\r\n"}),
        (".csv", {"sep": "\t", "encoding": "utf-8-sig"}),
        (".tsv", {"sep": "\t", "decimal": ","}),
    ],
)
def test_forms_of_csv(
    frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    """Other separators, decimal commas, quotes and a byte order mark are read as they are meant."""
    paths = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for path, frame in zip(paths, frames, strict=True):
        frame.rename(columns={"x3": "x3, EUR"}).to_csv(path, index=False, **options)
    renamed = [frame.rename(columns={"x3": "x3, EUR"}) for frame in frames]
    assert judged(result_of(*paths)) == judged(result_of(*renamed))


def test_the_index_that_pandas_writes_is_no_feature(frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    """Row numbers without a name, which always differ, are left out with a note, unless they are named."""
    names = {"a.csv": "", "b.csv": "Unnamed: 0", "c.parquet": "__index_level_0__"}
    reference, current = (frame.sample(frac=1, random_state=0) for frame in frames)
    current.index += 1000
    for file, name in names.items():
        paths = [tmp_path / f"{i}{file}" for i in range(2)]
        for path, frame in zip(paths, (reference, current), strict=True):
            if file.endswith("parquet"):
                frame.to_parquet(path)
            else:
                frame.to_csv(path, index_label=name)
        result = result_of(*paths)
        assert judged(result) == judged(result_of(reference, current))
        assert any("without a name" in note and f'"{name}"' in note for note in result.notes)
        if name:
            assert result_of(*paths, features=[name]).windows[0].features[name].drifted is True


def test_csv_values_that_do_not_fit_their_column(
    frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stray text far down a column of numbers is a missing value, not the end of the analysis."""
    monkeypatch.setattr(source, "CSV_BLOCK_BYTES", 4096)
    reference, current = (frame.copy() for frame in frames)
    current["count"] = current["count"].astype(object)
    current.loc[500, "count"] = "n/k"
    current.loc[501, "x1"] = np.nan
    path = tmp_path / "current.csv"
    current.to_csv(path, index=False)
    found = result_of(reference, path).windows[0].features["count"]
    assert found.missing == pytest.approx(1 / 600)
    assert found.drifted is False


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, unknown, damaged and empty files are told apart, by name."""
    frame = {"x": [1.0, 2.0]}
    with pytest.raises(FileNotFoundError, match="nothing"):
        analyze(reference=frame, current=tmp_path / "nothing.parquet")
    other = tmp_path / "x.xlsx"
    other.write_bytes(b"x")
    with pytest.raises(AnalysisError, match=r"must be a \.parquet, \.csv"):
        analyze(reference=frame, current=other)
    damaged = tmp_path / "x.parquet"
    damaged.write_bytes(b"no parquet at all")
    with pytest.raises(AnalysisError, match=r'x\.parquet" cannot be read'):
        analyze(reference=frame, current=damaged)
    ragged = tmp_path / "x.csv"
    ragged.write_text("x,y\n1,2\n3\n")
    with pytest.raises(AnalysisError, match=r'x\.csv" cannot be read'):
        analyze(reference=frame, current=ragged)
    wide = tmp_path / "w.csv"
    wide.write_text("x\n1\n", "utf-16")
    with pytest.raises(AnalysisError, match=r'w\.csv" cannot be read: it is UTF-16; must be UTF-8'):
        analyze(reference=frame, current=wide)
    western = tmp_path / "l.csv"
    western.write_text("x,name\n1,\xe9\n", "latin-1")
    with pytest.raises(AnalysisError, match=r'l\.csv" cannot be read: column "name" is no UTF-8'):
        analyze(reference=frame, current=western)
    twice = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.Table.from_arrays([pa.array([1.0])] * 2, ["x", "x"]), twice)
    with pytest.raises(AnalysisError, match=r't\.parquet" names the column "x" twice'):
        analyze(reference=frame, current=twice)
    empty = tmp_path / "e.csv"
    empty.write_text("x\n")
    with pytest.raises(AnalysisError, match="has no rows"):
        analyze(reference=empty, current=frame)
    with pytest.raises(AnalysisError, match="must be a path, a pandas or polars DataFrame"):
        analyze(reference=frame, current=3)


def _spans(frame: pd.DataFrame, version: str) -> tuple[ModelSpans, list[str]]:
    spans = ModelSpans(columns=("x0", "x1", "kind"), types=("numeric", "numeric", "categorical"), version=version)
    rows: list[dict[Any, Any]] = frame.to_dict("records")
    for i, row in enumerate(rows):
        kind = category_code(row["kind"], b"mlspan") if isinstance(row["kind"], str) else 0
        cells = np.array([row["x0"], row["x1"], 0], np.float32).view(np.uint32)
        cells[2] = kind
        scores = np.array([[1 - row["p"], row["p"]]], np.float32)
        spans.add(cells[None, :], predictions=[int(row["p"] > 0.5)], scores=scores, ids=[f"{version}-{i}"])
    return spans, [f"{version}-{i}" for i in range(len(rows))]


def _line(chunk: Chunk) -> bytes:
    kind = ExportTraceServiceRequest if chunk.signal is Signal.TRACES else ExportLogsServiceRequest
    return to_json(kind.FromString(chunk.data)) + b"\n"


def test_spans(frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    """Lines of OTLP, as file exporters write them, with labels as log records: against spans and against a table."""
    paths = []
    for name, frame in zip(("6", "7"), frames, strict=True):
        spans, ids = _spans(frame, name)
        labels = [(key, ("no", "yes")[truth]) for key, truth in zip(ids, frame["y"], strict=True)]
        path = tmp_path / f"{name}.jsonl.gz"
        with gzip.open(path, "wb") as file:
            file.write(b'{"resourceMetrics":[]}\n')
            file.write(_line(spans.chunk()))
            file.write(_line(feedback_logs(labels)))
        paths.append(path)
    result = analyze(reference=paths[0], current=paths[1])
    assert (result.task, result.classes) == ("binary", ("no", "yes"))
    [window] = result.windows
    assert window.metrics["accuracy"].labels == 600
    assert list(window.features) == ["x0", "x1", "kind"]
    assert str(window.start).startswith("2023-11-14T22:13:20")
    assert result.notes == ()
    table = analyze(
        reference=frames[0], current=frames[1], probability="p", label="y", features=["x0", "x1", "kind"]
    ).windows[0]
    for metric in ("accuracy", "f1", "roc_auc"):
        assert window.metrics[metric].realised == pytest.approx(table.metrics[metric].realised, abs=1e-6)
    for column in ("x0", "x1", "kind"):
        assert window.features[column].psi == pytest.approx(table.features[column].psi, rel=1e-6)
    mixed = analyze(
        reference=frames[0][["x0", "x1", "kind", "p", "y"]].assign(y=frames[0]["y"].map({0: "no", 1: "yes"})),
        current=paths[1],
        probability="yes=p",
        label="y",
    )
    assert mixed.windows[0].features["kind"].psi == pytest.approx(table.features["kind"].psi, rel=1e-6)
    assert mixed.windows[0].metrics["accuracy"].realised == window.metrics["accuracy"].realised


def test_spans_of_a_multilabel_model(tmp_path: Path) -> None:
    """Its outputs are known from the scope; labels of several outputs join, one that does not fit is none."""
    rng = np.random.default_rng(0)
    outputs, paths, tables = ("food", "music"), [], []
    for version in ("6", "7"):
        spans = ModelSpans(version=version, classes=(), task="multilabel", outputs=outputs, seed=int(version))
        p = rng.random((300, 2)).astype(np.float32)
        truth = rng.random(p.shape) < p
        ids = [
            prediction_id(spans.add(row[None], (p[i] > 0.5).astype(int), p[i][None]))
            for i, row in enumerate(rng.normal(size=(300, 2)).astype(np.float32))
        ]
        labels: list[tuple[str, Any]] = [(key, tuple(row)) for key, row in zip(ids, truth.tolist(), strict=True)]
        labels[0] = ids[0], ("cars",)
        path = tmp_path / f"{version}.jsonl"
        path.write_bytes(_line(spans.chunk()) + _line(feedback_logs(labels)))
        paths.append(path)
        tables.append((truth[1:], (p > 0.5)[1:], p[1:]))
    result = analyze(reference=paths[0], current=paths[1])
    assert (result.task, result.classes) == ("multilabel", outputs)
    found = result.windows[0].metrics
    truth, said, p = tables[1]
    assert found["f1_micro"].labels == 299
    assert found["f1_micro"].realised == pytest.approx(metrics.f1_score(truth, said, average="micro"))
    assert found["roc_auc"].realised == pytest.approx(metrics.roc_auc_score(truth, p))
    assert list(result.windows[0].features) == ["a", "b"]


def test_spans_without_rows(tmp_path: Path) -> None:
    """A file of spans whose payloads were taken off says which setting keeps them; other lines are no OTLP."""
    spans = ModelSpans()
    spans.add(None)
    path = tmp_path / "spans.jsonl"
    path.write_bytes(_line(spans.chunk()))
    with pytest.raises(AnalysisError, match="keep_payload"):
        analyze(reference={"x": [1.0]}, current=path)
    path.write_text('{"a": 1}\n')
    with pytest.raises(AnalysisError, match="line 1: no OTLP request"):
        analyze(reference={"x": [1.0]}, current=path)
