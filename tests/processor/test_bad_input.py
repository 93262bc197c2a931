"""Valid OTLP that means nonsense: the spans go on, the other spans keep their statistics, metrics keep coming."""

import math
from pathlib import Path

import numpy as np
import pytest

from mlspan.payload import MAX_ID_BYTES
from mlspan.semconv import attributes as names
from mlspan_processor import scopes
from mlspan_processor.connector import MlspanConnector
from mlspan_processor.label_texts import class_texts
from mlspan_processor.labels import Label
from mlspan_processor.model_spans import START, ModelSpans, feedback_spans, put
from mlspan_processor.reference import ReferenceBook
from mlspan_processor.scopes import Schemas
from mlspan_processor.state import State
from tests.processor.helpers import SECOND, Rig, gauge, key_of, normal_rows, values_of


def ordinary(seed: int) -> ModelSpans:
    """Two calls like any others."""
    spans = ModelSpans(seed=seed)
    for row in normal_rows(2, seed):
        spans.add(row[None], [1])
    return spans


@pytest.mark.parametrize("written", ["many", 3.0, -5, 1 << 62, float("nan"), ""])
def test_a_row_count_that_is_none(written: str | float) -> None:
    """ml.input.rows of another type or out of range counts no rows, and costs nobody a span."""
    with Rig() as rig:
        spans = ordinary(1)
        odd = spans.add(None, [1])
        odd.attributes[-2].Clear()
        odd.attributes.pop()
        put(odd, names.ML_INPUT_ROWS, written)
        assert len(rig.send(spans.chunk(), ordinary(2).chunk())) == 5
        points = rig.flush()
        counted = sum(point.as_int for key, point in points.items() if key[0] == "ml.prediction.count")
        assert counted == 4 + (3 if written == 3.0 else 0)
        assert rig.counters()["failed_blocks"] == 0


@pytest.mark.parametrize("label", [math.nan, math.inf, -math.inf, "x" * 10_000])
def test_labels_that_are_no_class_and_no_value(label: str | float) -> None:
    """They are invalid whether their prediction is known or not, and the spans beside them go on."""
    with Rig() as rig:
        spans = ordinary(1)
        spans.add(normal_rows(1, 5), [1], ids=["order-1"])
        rig.send(spans.chunk())
        assert len(rig.send(feedback_spans([("order-1", label), ("order-2", label)]), ordinary(2).chunk())) == 4
        assert rig.counters()["labels_invalid"] == 2
        assert rig.connector.submit_labels([Label("order-1", "yes")]).joined == 1


def test_a_bug_in_reading_one_request_costs_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request goes on without payloads and is counted; those beside it keep their statistics."""
    with Rig() as rig:
        collect = rig.connector._state._decoder.collect

        def fail(request: object, calls: object, has_feedback: bool) -> None:
            collect(request, calls, has_feedback)  # type: ignore[arg-type]  # as the decoder's own
            if b"broken" in request.SerializeToString():  # type: ignore[attr-defined]  # a lean request
                raise RuntimeError

        monkeypatch.setattr(rig.connector._state._decoder, "collect", fail)
        broken = ordinary(3)
        put(broken.scope.spans[0], "broken", True)
        forwarded = rig.send(ordinary(1).chunk(), broken.chunk(), ordinary(2).chunk())
        assert len(forwarded) == 6
        assert not any(names.ML_PAYLOAD in values_of(span) for span in forwarded)
        assert rig.counters()["failed_blocks"] == 1
        assert rig.counters()["spans"] == 4


def test_nothing_that_the_state_raises_costs_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged goes on, whatever fails."""

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(State, "process", fail)
    with Rig() as rig:
        assert len(rig.send(ordinary(1).chunk())) == 2
        assert rig.counters()["failed_blocks"] == 1


def test_times_out_of_range() -> None:
    """Times 0 and beyond int64 are late or ahead, take no or a finite time, and metrics keep coming."""
    with Rig() as rig:
        spans = ordinary(1)
        for start, end in ((0, 0), (0, START), (START, 0), (1 << 63, (1 << 64) - 1), (START, 1 << 63)):
            span = spans.add(normal_rows(1, 7), [1])
            span.start_time_unix_nano, span.end_time_unix_nano = start, end
        assert len(rig.send(spans.chunk())) == 7
        counters = rig.counters()
        assert (counters["late_rows"], counters["rows_ahead_of_time"], counters["failed_blocks"]) == (2, 2, 0)
        key = key_of("ml.operation.duration", **model(), **{names.ML_OPERATION_NAME: "predict"})
        histogram = rig.flush()[key]
        assert histogram.count == 7
        assert histogram.sum < 2**63 / SECOND
        assert rig.counters()["failed_blocks"] == 0


def test_the_greatest_weights() -> None:
    """A probability of 2**-56 is valid: counts stop where OTLP's integers do, and metrics keep coming."""
    with Rig() as rig:
        spans = ModelSpans()
        for row in normal_rows(3, 0):
            spans.add(row[None], [1], trace_state="ot=th:ffffffffffffff", total_rows=(1 << 32) - 1)
        rig.send(spans.chunk())
        for _ in range(2):
            point = rig.flush()[key_of("ml.prediction.count", **model(), **{names.ML_PREDICTION_CLASS: "yes"})]
            assert point.as_int == 1 << 58
        assert rig.counters()["failed_blocks"] == 0


def test_ids_of_another_length_are_no_exemplars() -> None:
    """A backend would refuse the whole request over them; the spans count."""
    with Rig() as rig:
        spans = ordinary(1)
        for span, length in zip(spans.scope.spans, (0, 40), strict=True):
            span.trace_id = span.span_id = b"x" * length
        rig.send(spans.chunk())
        key = key_of("ml.operation.duration", **model(), **{names.ML_OPERATION_NAME: "predict"})
        histogram = rig.flush()[key]
        assert (histogram.count, len(histogram.exemplars)) == (2, 0)


def test_root_spans_named_after_their_trace() -> None:
    """Spans whose id is the low half of their trace id are different spans."""
    with Rig() as rig:
        spans = ordinary(1)
        for span in spans.scope.spans:
            span.span_id = span.trace_id[8:]
        rig.send(spans.chunk())
        assert rig.counters()["duplicate_spans"] == 0


def test_numbers_without_a_number() -> None:
    """NaN and infinities as inputs and scores, and classes that do not exist: learnt, counted, no warning."""
    nowhere = np.array([[np.nan, np.inf], [-np.inf, 3e38], [-3e38, np.nan]], np.float32)
    with Rig(reference={"learn_rows": 100}) as rig:
        for seed in range(2):
            spans = ModelSpans(seed=seed)
            for _ in range(40):
                spans.add(nowhere, [0, 5, -7], np.full((3, 2), np.nan, np.float32))
            assert len(rig.send(spans.chunk())) == 40
        assert rig.connector.report("fraud")["reference"]["state"] == "ready"
        assert gauge(rig.flush(), "ml.drift.window.rows", **model()) == 120
        assert rig.counters()["failed_blocks"] == 0


def test_long_ids_count_by_their_beginning() -> None:
    """An id is cut at the same byte on both sides, so that its label still finds it; waiting labels keep no id."""
    name = "i" * MAX_ID_BYTES
    with Rig() as rig:
        assert rig.connector.submit_labels([Label(name + "x" * 10_000, "yes")]).waiting == 1
        (((waiting, _, _),),) = rig.connector._state.labels._waiting.values()
        assert waiting.prediction_id == ""
        spans = ModelSpans()
        spans.add(normal_rows(1, 0), [1], ids=[name])
        rig.send(spans.chunk())
        assert rig.counters()["labels_joined"] == 1


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (("0", "1"), [1, 1.0, "1", "1.0", "true", "True", "TRUE"]),
        (("0.0", "1.0"), [1.0, "1", "1.0", "true"]),
        (("False", "True"), [1.0, "1", "True", "true"]),
        (("-1", "1234567"), [1234567.0, "1234567", "1234567.0"]),
        (("0.5", "2.5"), [2.5, "2.5", "2.50"]),
    ],
)
def test_labels_mean_the_class_whatever_their_type(classes: tuple[str, str], labels: list[str | float]) -> None:
    """1, 1.0, "1", true and "True" are the second class of a model of integers, floats or booleans."""
    with Rig() as rig:
        spans = ModelSpans(classes=classes)
        for i, row in enumerate(normal_rows(len(labels), 0)):
            spans.add(row[None], [1], ids=[f"order-{i}"])
        rig.send(spans.chunk())
        rig.connector.submit_labels([Label(f"order-{i}", label) for i, label in enumerate(labels)])
        answer = rig.connector.report("fraud")
        assert answer["quality"]["realised"]["accuracy"]["value"] == 1.0
        assert answer["model"]["classes"] == list(classes)


@pytest.mark.parametrize("label", [1.0, "True", "true"])
def test_truths_are_written_in_several_ways(label: str | float) -> None:
    """One, True and true mean each other, whichever the label and whichever the model's class is."""
    assert {"1", "True", "true"} <= set(class_texts(label))


def test_labels_that_look_alike_are_other_classes() -> None:
    """Leading zeros and exponents are names; unseen numbers keep all their digits."""
    assert class_texts("007") == ("007",)
    assert class_texts("1e3") == ("1e3",)
    assert class_texts("yes") == ("yes",)
    labels: list[str | float] = ["007", 1234567.0, 1234568.0, "1234567"]
    with Rig() as rig:
        spans = ModelSpans(classes=("7", "8"))
        for i, row in enumerate(normal_rows(4, 0)):
            spans.add(row[None], [0], ids=[f"order-{i}"])
        rig.send(spans.chunk())
        rig.connector.submit_labels([Label(f"order-{i}", label) for i, label in enumerate(labels)])
        assert rig.connector.report("fraud")["model"]["classes"] == ["7", "8", "007", "1234567", "1234568"]


def test_scopes_without_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembered scopes are bounded by their bytes, and nothing else keeps those that were forgotten."""
    monkeypatch.setattr(scopes, "MAX_SCOPE_BYTES", 100_000)
    schemas = Schemas()
    for i in range(50):
        spans = ModelSpans(columns=[f"{i}-{j}" for j in range(300)], types=["numeric"] * 300)
        schemas.get(spans.scope.scope.SerializeToString())
    assert 1 < len(schemas._known) < 20
    assert schemas._bytes == sum(map(len, schemas._known)) <= 100_000
    with Rig(reference={"learn_rows": 100}) as rig:
        for i in range(30):
            columns = ["a", "b", *(f"{i}-{j}" for j in range(300))]
            spans = ModelSpans(columns=columns, types=["numeric"] * 302, seed=i)
            for _ in range(2 if i else 120):
                spans.add(np.zeros((1, 302), np.float32), [1])
            rig.send(spans.chunk())
        (one,) = rig.connector._state.models.values()
        assert one.reference is not None
        assert len(one.reference._bindings) <= 20
        assert len(one._maps) <= 20


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "\0", '{"format": "mlspan-profile"}'])
def test_files_that_are_no_profiles_are_passed_over(text: str, tmp_path: Path) -> None:
    """Whatever stands in the folder is counted, and neither the start nor a flush fails."""
    (tmp_path / "odd.json").write_text(text)
    with Rig(reference={"path": str(tmp_path)}) as rig:
        rig.send(ordinary(1).chunk())
        assert rig.flush()
        assert (rig.counters()["unreadable_profiles"], rig.counters()["failed_blocks"]) == (1, 0)


def test_what_fails_now_and_then_does_not_keep_metrics_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are sent when looking for references fails."""

    def fail(_: object) -> bool:
        raise RuntimeError

    with Rig() as rig:
        rig.send(ordinary(1).chunk())
        monkeypatch.setattr(ReferenceBook, "rescan", fail)
        assert rig.flush()
        assert rig.counters()["failed_blocks"] == 1


def test_what_stopping_leaves_behind_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Requests that the connector had no time for are counted and logged."""
    connector = MlspanConnector()
    connector.consume(ordinary(1).chunk())
    connector.shutdown(0.0)
    assert connector.counters()["unforwarded_items"] == 2
    assert "2 items were not handed on" in caplog.text


def model() -> dict[str, str]:
    """Attributes of fraud@7."""
    return {names.ML_MODEL_NAME: "fraud", names.ML_MODEL_VERSION: "7"}
