"""Requests to calls and rows: every way in which model spans arrive."""

from dataclasses import replace

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from mlspan import payload
from mlspan_processor import lean, rows
from mlspan_processor.decode import Calls, Decoder, adjusted_count
from mlspan_processor.model_spans import ModelSpans, put
from mlspan_processor.records import Chunk
from tests.processor.helpers import Rig, normal_rows, values_of
from tests.processor.helpers import calls as calls_of


def read(*chunks: Chunk) -> tuple[Calls, list[rows.Block], list[int], dict[int, int]]:
    """The calls and rows of some chunks."""
    decoder, calls = Decoder(), Calls()
    for chunk in chunks:
        decoder.collect(lean.parse(chunk.data), calls, has_feedback=b"ml.feedback.label" in chunk.data)
    return calls, *rows.read(calls)


def cells(n: int, seed: int = 0) -> np.ndarray:
    """(n, 2) features."""
    return np.random.default_rng(seed).normal(size=(n, 2)).astype("<f4")


def test_lean_messages_lose_nothing() -> None:
    """Parsing and writing back gives an equal message, whatever fields and scopes the request has."""
    spans = ModelSpans()
    span = spans.add(cells(1), [1], trace_state="a=1", after_payload="team")
    span.links.add(trace_id=b"1" * 16)
    span.events.add(name="x")
    span.flags = 257
    span.dropped_attributes_count = 3
    spans.request.resource_spans[0].schema_url = "https://example.com"
    other = spans.request.resource_spans.add().scope_spans.add()
    other.scope.name = "http"
    other.spans.add(name="GET /", kind=2).status.message = "no"
    data = spans.request.SerializeToString()
    again = ExportTraceServiceRequest.FromString(lean.parse(data).SerializeToString())
    assert again == spans.request


def test_one_row_calls_are_read_as_one_block() -> None:
    """Cells, answers and order of many one-row calls come out as they went in."""
    spans = ModelSpans()
    table, p = cells(20), np.random.default_rng(1).random((20, 2)).astype("<f4")
    for i in range(20):
        spans.add(table[i : i + 1], [i % 2], p[i : i + 1])
    calls, (block,), damaged, _ = read(spans.chunk())
    assert len(calls) == 20
    assert not damaged
    assert len(calls.groups) == 1
    assert block.columns.T.tobytes() == table.tobytes()
    assert block.predictions[:, 0].tolist() == [0, 1] * 10
    assert block.scores.tobytes() == p.tobytes()
    assert block.call.tolist() == block.firsts.tolist() == list(range(20))
    assert block.stands_for.tolist() == [1.0] * 20


def test_calls_of_several_shapes_become_one_block() -> None:
    """One-row, many-row, sampled and empty calls of one schema: rows keep their call, number and weight."""
    spans = ModelSpans()
    spans.add(cells(1), [0])
    spans.add(cells(3), [0, 1, 1], total_rows=30, indices=np.array([4, 9, 20], "<u4"))
    spans.add(cells(3), [1, 1, 1], total_rows=30, indices=np.array([5, 6, 7], "<u4"))
    spans.add(cells(0), total_rows=12)
    _, (block,), damaged, empty = read(spans.chunk())
    assert not damaged
    assert empty == {3: 12}
    order = np.argsort(block.call, kind="stable")
    assert block.call[order].tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert block.number[order].tolist() == [0, 4, 9, 20, 5, 6, 7]
    assert block.stands_for[order].tolist() == [1, 10, 10, 10, 10, 10, 10]
    assert sorted(block.call[block.firsts].tolist()) == [0, 1, 2]


def test_ids_of_the_user() -> None:
    """Ids travel in the payload; calls of one id length are read together, several rows with ids one by one."""
    spans = ModelSpans()
    for text in ("order-1", "order-2", "ä"):
        spans.add(cells(1), [0], ids=[text])
    spans.add(cells(3), [0, 1, 0], ids=["x", "", "z"])
    spans.add(cells(3), [0, 1, 0], ids=["u", "v", ""])
    _, (block,), damaged, _ = read(spans.chunk())
    assert not damaged
    by_row = {(int(block.call[row]), int(block.number[row])): text for row, text in block.ids.items()}
    assert by_row == {
        (0, 0): "order-1",
        (1, 0): "order-2",
        (2, 0): "ä",
        (3, 0): "x",
        (3, 2): "z",
        (4, 0): "u",
        (4, 1): "v",
    }


def test_payload_as_text() -> None:
    """Base64 text, from senders whose spans carry no bytes, gives the same rows."""
    spans, table = ModelSpans(), cells(5)
    for i in range(5):
        raw = spans.encode(table[i : i + 1], [1], None, 1, 1)
        spans.add(table[i : i + 1], raw=payload.to_text(raw))
    _, (block,), damaged, _ = read(spans.chunk())
    assert not damaged
    assert block.columns.T.tobytes() == table.tobytes()


def test_attributes_moved_by_other_processors() -> None:
    """A payload that is not last is found, and so are operation and id wherever they stand."""
    spans = ModelSpans()
    span = spans.add(cells(1), [1], after_payload="team")
    put(span, "ml.prediction.id", "order-9")
    first = span.attributes[0]
    span.attributes.append(first)
    del span.attributes[0]
    calls, (block,), _, _ = read(spans.chunk())
    assert calls.kinds[0][1] == "predict"
    assert calls.positions == {0: 3}
    assert calls.ids == {0: "order-9"}
    assert block.n_rows == 1


def test_damaged_payloads_cost_only_themselves() -> None:
    """Cut, unknown version, other columns, no payload at all: counted, the rest is read."""
    spans = ModelSpans()
    good = spans.encode(cells(1), [1], None, 1, 1)
    wider = payload.encode(1, np.zeros((1, 3), "<f4"), payload.column_bits([False] * 3))
    typed = payload.encode(1, np.zeros((1, 2), "<u4"), payload.column_bits([True, False]))
    for raw in (good, good[:-2], b"", b"\xa7\x09" + good[2:], wider, typed, "not base64!", good):
        spans.add(cells(1), raw=raw)
    calls, blocks, damaged, _ = read(spans.chunk())
    assert sorted(damaged) == [1, 2, 3, 4, 5, 6]
    assert sorted(call for block in blocks for call in block.call.tolist()) == [0, 7]
    assert len(calls) == 8


def test_errors_and_calls_without_capture() -> None:
    """A failed call has its error type; one without payload its rows and class."""
    spans = ModelSpans()
    spans.add(None, error="ValueError")
    spans.add(None, [1], total_rows=3)
    calls, blocks, _, _ = read(spans.chunk())
    assert [kind[1:] for kind in calls.kinds] == [("predict", "ValueError"), ("predict", "")]
    assert calls.bare == {0: (0, ""), 1: (3, "yes")}
    assert not blocks


def test_scope_without_attributes() -> None:
    """A span whose scope lost its attributes keeps its model; its rows, without names, count as damaged."""
    spans = ModelSpans(scope_attributes=False)
    spans.add(cells(1), [1])
    calls, blocks, damaged, _ = read(spans.chunk())
    assert calls.kinds[0][0].model == ("fraud", "7")
    assert (blocks, damaged) == ([], [0])


def test_scope_without_a_version() -> None:
    """A fit's scope does not know the version yet; the span does."""
    spans = ModelSpans(scope_version=False)
    spans.add(None, operation="fit")
    spans.add(cells(2), [0, 1])
    calls, blocks, _, _ = read(spans.chunk())
    assert {kind[0].model for kind in calls.kinds} == {("fraud", "7")}
    assert [block.schema.model for block in blocks] == [("fraud", "7")]


@pytest.mark.parametrize(
    ("trace_state", "expected"),
    [
        (b"ot=th:8", 2.0),
        (b"ot=th:c", 4.0),
        (b"ot=th:0", 1.0),
        (b"ot=th:ffffffffffffff", 2.0**56),
        (b"vendor=a,ot=rv:abc;th:e6666666666666", pytest.approx(10.0)),
        (b"ot=p:8", None),
        (b"", None),
        (b"ot=th:xyz", None),
        (b"bot=th:8", None),
        (b"ot=th:123456789012345", None),
    ],
)
def test_adjusted_counts(trace_state: bytes, expected: float | None) -> None:
    """The adjusted count is 2^56 / (2^56 - threshold), from the ot entry's th only."""
    assert adjusted_count(trace_state) == expected


def test_many_models_and_requests() -> None:
    """Calls of several requests and models keep their own schema."""
    one, two = ModelSpans(), ModelSpans(model="churn", columns=("q",), types=("categorical",), classes=())
    one.add(cells(1), [1])
    two.add(np.array([[9]], "<u4"), [0.5])
    _, blocks, _, _ = read(one.chunk(), two.chunk(), Chunk(one.chunk().signal, b"", 0))
    assert {block.schema.model: block.n_rows for block in blocks} == {("fraud", "7"): 1, ("churn", "7"): 1}


def value_first(chunk: Chunk) -> Chunk:
    """The same request with every attribute's value written before its key, as the Collector writes it."""
    request = lean.parse(chunk.data)
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                for i, raw in enumerate(span.attributes):
                    key = KeyValue.FromString(raw).key.encode()
                    length = 2 + len(key)
                    span.attributes[i] = raw[length:] + raw[:length]
    return replace(chunk, data=request.SerializeToString())


@pytest.mark.parametrize("scope_attributes", [True, False])
def test_attributes_with_the_value_before_the_key_are_read_alike(scope_attributes: bool) -> None:
    """Protobuf leaves the order of fields open; the Collector writes a KeyValue's value first."""
    spans = ModelSpans(scope_attributes=scope_attributes)
    for i in range(3):
        spans.add(cells(1, i), [1], ids=[f"order-{i}"])
    spans.add(cells(5), [0, 1, 0, 1, 1], after_payload="team")
    spans.add(None, error="ValueError")
    chunk = spans.chunk()
    turned = value_first(chunk)
    assert turned.data != chunk.data
    assert ExportTraceServiceRequest.FromString(turned.data) == ExportTraceServiceRequest.FromString(chunk.data)
    plain, blocks, damaged, _ = read(chunk)
    calls, turned_blocks, turned_damaged, _ = read(turned)
    assert turned_damaged == damaged
    assert [kind[1:] for kind in calls.kinds] == [kind[1:] for kind in plain.kinds]
    assert calls.kind_of == plain.kind_of
    assert [block.columns.tobytes() for block in turned_blocks] == [block.columns.tobytes() for block in blocks]


def test_spans_of_the_collector_are_enriched() -> None:
    """A request as the Collector writes it loses its payloads and gains summaries, at first and later."""
    with Rig(reference={"learn_rows": 200}) as rig:
        spans = ModelSpans()
        rig.send(value_first(calls_of(spans, normal_rows(200, 0))))
        for seed in (1, 2):
            for span in rig.send(value_first(calls_of(spans, normal_rows(20, seed)))):
                values = values_of(span)
                assert "ml.payload" not in values
                assert {"ml.input.summary", "ml.anomaly.score", "ml.anomaly.flag"} <= set(values)
