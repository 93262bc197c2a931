"""The connector as a whole: what passes untouched, what is counted, what happens when things go wrong."""

import threading
import time

import numpy as np
import pytest

from mlspan_processor.connector import MlspanConnector
from mlspan_processor.model_spans import START, ModelSpans
from mlspan_processor.records import Chunk, PermanentError, RetryableError, Signal
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.state import State
from mlspan_processor.testing import Refusing, Sink, trace_chunk
from tests.processor.helpers import SECOND, Rig, calls, gauge, key_of, normal_rows, spans_of, values_of


def rows_in_panes(rig: Rig) -> float:
    """Weighted rows in all drift panes of fraud@7."""
    (model,) = rig.connector._state.models.values()
    return model.drift.sum(0, 1 << 62).rows


def test_requests_without_a_model_pass_in_the_callers_thread() -> None:
    """Their bytes are those that came, before the connector is even started."""
    rig = Rig()
    chunk = trace_chunk(3)
    rig.connector.consume(chunk)
    assert rig.traces.chunks == [chunk]
    logs = Chunk(Signal.LOGS, b"\n\0", 0)
    rig.connector.consume(logs)
    assert rig.logs.chunks == [logs]


def test_errors_of_outputs_reach_the_sender_of_passing_requests() -> None:
    """What comes next decides whether a request without a model is retried or refused."""
    rig = Rig()
    for error in (RetryableError("later", 2.0), PermanentError("never")):
        rig.connector.outputs[Signal.TRACES] = Refusing(error)
        with pytest.raises(type(error)):
            rig.connector.consume(trace_chunk())


def test_spans_of_others_in_a_model_request_are_untouched() -> None:
    """Only model spans change, and the order of spans stays."""
    with Rig() as rig:
        spans = ModelSpans()
        scope = spans.request.resource_spans[0].scope_spans.add()
        scope.scope.name = "http"
        scope.spans.add(name="GET /", kind=2, trace_id=b"1" * 16, span_id=b"2" * 8)
        spans.add(normal_rows(1, 0), [1])
        before = spans.scope.spans[0].span_id
        model, http = rig.send(spans.chunk())
        assert model.span_id == before
        assert http == scope.spans[0]


def test_full_queue_asks_to_try_again() -> None:
    """Requests or bytes beyond the limit raise RetryableError with a delay; nothing is taken."""
    for limit in ({"max_requests": 2}, {"max_bytes": 1024}):
        rig = Rig(queue=limit)
        spans = ModelSpans()
        taken, waits = 0, list[float | None]()
        while rig.counters()["refused_requests"] == 0:
            try:
                rig.connector.consume(calls(spans, normal_rows(1, taken)))
                taken += 1
            except RetryableError as error:
                waits.append(error.retry_after_seconds)
        assert 1 <= taken <= 3
        assert waits[0]
        rig.connector.start()
        rig.connector.drain()
        assert rig.traces.items == taken
        rig.connector.shutdown()


def test_a_span_that_comes_twice_counts_once_and_is_forwarded_twice() -> None:
    """An OTLP retry of a whole request changes no statistics."""
    with Rig(reference={"learn_rows": 100}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(150, 0)))
        chunk = calls(spans, normal_rows(50, 1))
        assert len(rig.send(chunk, chunk)) == 100
        rig.send(chunk)
        assert rows_in_panes(rig) == 50
        assert rig.counters()["duplicate_spans"] == 100
        points = rig.flush()
        assert sum(p.as_int for key, p in points.items() if key[0] == "ml.prediction.count") == 200
        assert points[key_of("ml.operation.duration", ml_operation_name="predict")].count == 200


def test_late_rows_go_to_their_pane_and_too_late_ones_nowhere() -> None:
    """Within retention a row counts in its own pane; beyond it, or far in the future, it is only counted as such."""
    with Rig(reference={"learn_rows": 100}, window={"retention": "1h"}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(100, 0)))
        rig.clock.advance(1800)
        now = rig.clock.now
        rig.send(calls(spans, normal_rows(10, 1), end=now))
        rig.send(calls(spans, normal_rows(20, 2), end=now - 1000 * SECOND))
        rig.send(calls(spans, normal_rows(5, 3), end=now - 4000 * SECOND))
        rig.send(calls(spans, normal_rows(7, 4), end=now + 700 * SECOND))
        (model,) = rig.connector._state.models.values()
        assert [pane.stats.rows for pane in model.drift] == [20, 10]
        assert rig.counters()["late_rows"] == 5
        assert rig.counters()["rows_ahead_of_time"] == 7
        assert rig.traces.items == 142


def test_weights_undo_sampling() -> None:
    """A stream sampled at 25 %, with its threshold in tracestate, counts as the whole stream; without it, as itself."""
    with Rig(reference={"learn_rows": 500}, window={"min_rows": 100_000}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(500, 0)))
        rows = normal_rows(4000, 1, shift=0.3)
        kept = np.random.default_rng(2).random(4000) < 0.25
        rig.send(calls(spans, rows[kept], trace_state="ot=th:c"))
        rig.send(calls(spans, rows[:100], trace_state="vendor=1"))
        expected = 4 * kept.sum() + 100
        assert rows_in_panes(rig) == expected
        points = rig.flush()
        assert points[key_of("ml.operation.duration", ml_operation_name="predict")].count == 500 + expected
        assert gauge(points, "ml.weight.unknown.ratio") == pytest.approx(600 / (600 + kept.sum()))


def test_sampled_rows_of_a_call_stand_for_the_others() -> None:
    """10 captured rows of a call with 1,000 count 1,000, and their shares are unbiased."""
    with Rig(reference={"learn_rows": 500}) as rig:
        spans = ModelSpans()
        rig.send(calls(spans, normal_rows(500, 0)))
        rng = np.random.default_rng(0)
        for _ in range(100):
            rows = normal_rows(1000, int(rng.integers(1 << 30)))
            at = np.sort(rng.choice(1000, 10, replace=False))
            answers = (rows[at, 0] > 0).astype(int)
            spans.add(rows[at], answers, total_rows=1000, indices=at.astype("<u4"))
        rig.send(spans.chunk())
        assert rows_in_panes(rig) == pytest.approx(100_000)
        points = rig.flush()
        yes = points[key_of("ml.prediction.count", ml_prediction_class="yes")].as_int
        assert yes == pytest.approx(50_000 + 250, rel=0.1)


def test_damaged_payloads_lose_only_statistics() -> None:
    """The span goes on without its payload and is counted; the others are not affected."""
    with Rig() as rig:
        spans = ModelSpans()
        spans.add(normal_rows(1, 0), [1])
        spans.add(normal_rows(1, 0), raw=b"\xa7\x63 nonsense")
        good, bad = rig.send(spans.chunk())
        assert "ml.input.summary" in values_of(good)
        assert {"ml.payload", "ml.input.summary"} & set(values_of(bad)) == set()
        assert rig.counters()["damaged_payloads"] == 1
        assert rig.flush()[key_of("ml.operation.duration", ml_operation_name="predict")].count == 2


def test_a_bug_in_statistics_stops_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is raised on the state thread is counted and logged once; spans go on without payload."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    with Rig() as rig:
        spans = ModelSpans()
        for method, count in (("_block", 1), ("_spans", 2)):
            monkeypatch.setattr(State, method, broken)
            (span,) = rig.send(calls(spans, normal_rows(1, 0)))
            assert "ml.payload" not in values_of(span)
            assert rig.counters()["failed_blocks"] == count
        rig.send(calls(spans, normal_rows(1, 1)), calls(spans, normal_rows(1, 2)))
    assert sum("ZeroDivisionError" in record.getMessage() for record in caplog.records) == 2


def test_an_output_that_refuses_loses_only_its_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A permanent refusal is counted in spans; a retryable one is tried again for a while."""
    monkeypatch.setattr("mlspan_processor.connector.FORWARD_SECONDS", 0.2)
    with Rig() as rig:
        spans = ModelSpans()
        for error in (PermanentError("no"), RetryableError("full", 0.05)):
            rig.connector.outputs[Signal.TRACES] = Refusing(error)
            rig.connector.consume(calls(spans, normal_rows(2, 0)))
            rig.connector.drain()
        assert rig.counters()["unforwarded_items"] == 4
        rig.connector.outputs[Signal.TRACES] = rig.traces
        assert len(rig.send(calls(spans, normal_rows(2, 1)))) == 2


def test_a_busy_output_gets_its_chunk_later() -> None:
    """After a retryable refusal the chunk comes once more, unchanged."""

    class Busy(Sink):
        refusals = 2

        def consume(self, chunk: Chunk) -> None:
            self.refusals -= 1
            if self.refusals >= 0:
                raise RetryableError("busy", 0.01)
            super().consume(chunk)

    with Rig() as rig:
        busy = Busy()
        rig.connector.outputs[Signal.TRACES] = busy
        rig.connector.consume(calls(ModelSpans(), normal_rows(2, 0)))
        rig.connector.drain()
        assert busy.items == 2
        assert rig.counters()["unforwarded_items"] == 0


def test_unreadable_bytes_are_handed_on() -> None:
    """Bytes that are no request (the receiver should have refused them) go on as they came, and are counted."""
    with Rig() as rig:
        chunk = Chunk(Signal.TRACES, b"\xff\xffml.model.name", 1)
        rig.connector.consume(chunk)
        rig.connector.drain()
        assert rig.traces.chunks == [chunk]
        assert rig.counters()["unreadable_requests"] == 1


def test_calls_that_captured_nothing_still_count() -> None:
    """With capture off, answers come from the readable attributes; fit and transform predict nothing."""
    with Rig() as rig:
        spans = ModelSpans()
        spans.add(None, [1], total_rows=1)
        spans.add(None, total_rows=40)
        spans.add(None, total_rows=1000, operation="fit")
        rig.send(spans.chunk())
        points = rig.flush()
        assert points[key_of("ml.prediction.count", ml_prediction_class="yes")].as_int == 1
        assert points[key_of("ml.prediction.count")].as_int == 40
        assert points[key_of("ml.operation.duration", ml_operation_name="fit")].count == 1


def test_lifecycle() -> None:
    """Shutdown works off the queue and sends last metrics; it is safe before start and twice."""
    rig = Rig()
    rig.connector.shutdown()
    rig = Rig()
    spans = ModelSpans()
    for seed in range(5):
        rig.connector.consume(calls(spans, normal_rows(10, seed)))
    rig.connector.start()
    rig.connector.start()
    rig.connector.shutdown(10)
    rig.connector.shutdown(10)
    assert rig.traces.items == 50
    assert rig.metrics.items
    with pytest.raises(RetryableError):
        rig.connector.consume(calls(spans, normal_rows(1, 9)))


def test_models_beyond_the_limit_are_counted_together() -> None:
    """Their spans go on with a summary; their series are one, marked as overflow."""
    with Rig(max_models=2) as rig:
        for seed, name in enumerate(("a", "b", "c", "d")):
            spans = ModelSpans(model=name, seed=seed)
            for span in rig.send(calls(spans, normal_rows(3, 0))):
                assert "ml.input.summary" in values_of(span)
        assert rig.counters()["models"] == 2
        assert rig.counters()["model_overflow_spans"] == 6
        points = rig.flush()
        overflow = ("otel.metric.overflow", True)
        assert points["ml.operation.duration", overflow].count == 6
        assert points["ml.prediction.count", overflow].as_int == 6


def test_idle_models_are_forgotten() -> None:
    """A version without spans for window.idle leaves nothing behind, and makes room for another."""
    with Rig(max_models=1, window={"idle": "1h"}, reference={"learn_rows": 100}) as rig:
        rig.send(calls(ModelSpans(), normal_rows(200, 0)))
        rig.clock.advance(3700)
        rig.flush()
        assert rig.connector.status()["models"] == []
        rig.clock.advance(11)
        points = rig.flush()
        assert not [key for key in points if ("ml.model.name", "fraud") in key]
        rig.send(calls(ModelSpans(model="next"), normal_rows(1, 1)))
        assert [model["name"] for model in rig.connector.status()["models"]] == ["next"]


def test_memory_stays_flat() -> None:
    """A long stream over an hour and a half of event time: panes, ids, labels and series stay within their bounds."""
    settings = {
        "reference": {"learn_rows": 200},
        "window": {"max_panes": 20, "retention": "1h"},
        "labels": {"capacity": 500, "waiting_capacity": 50},
    }
    with Rig(**settings) as rig:
        spans = ModelSpans()
        sizes = []
        for step in range(180):
            rig.clock.advance(30)
            rig.send(calls(spans, normal_rows(20, step), end=rig.clock.now))
            rig.flush()
            state = rig.connector._state
            (model,) = state.models.values()
            pending = state.labels.pending
            sizes.append(model.drift.nbytes + model.quality.nbytes + pending.nbytes)
            assert len(model.drift) <= 20
            assert pending.size <= 500
        assert max(sizes[90:]) <= 1.3 * max(sizes[45:90])


def test_pane_bytes_are_bounded_over_all_models() -> None:
    """Beyond window.max_bytes the largest model's panes merge; no row is lost."""
    config = MlspanSettings.model_validate({"reference": {"learn_rows": 100}})
    object.__setattr__(config.window, "max_bytes", 30_000)
    state_rig = Rig()
    state_rig.connector = MlspanConnector(config, "mlspan", state_rig.clock)
    state_rig.connector.outputs = {Signal.TRACES: state_rig.traces, Signal.METRICS: state_rig.metrics}
    with state_rig as rig:
        spans = ModelSpans()
        for step in range(60):
            rig.clock.advance(10)
            rig.send(calls(spans, normal_rows(10, step), end=rig.clock.now))
        assert rows_in_panes(rig) == 500
        for _ in range(6):
            rig.flush()
        (model,) = rig.connector._state.models.values()
        assert model.drift.nbytes + model.quality.nbytes <= 30_000
        assert rows_in_panes(rig) == 500


def test_threads_may_send_at_once() -> None:
    """Chunks from many threads all arrive, each once."""
    with Rig(queue={"max_requests": 10_000}) as rig:
        chunks = [[calls(ModelSpans(seed=t * 100 + i), normal_rows(5, i)) for i in range(20)] for t in range(8)]

        def send(mine: list[Chunk]) -> None:
            for chunk in mine:
                rig.connector.consume(chunk)

        threads = [threading.Thread(target=send, args=(mine,)) for mine in chunks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rig.connector.drain()
        assert rig.traces.items == 800
        assert rig.counters()["duplicate_spans"] == 0


def test_metrics_are_sent_by_the_clock() -> None:
    """Without anybody asking, metrics go out once the interval has passed."""
    with Rig(metrics_flush_interval="10ms") as rig:
        rig.send(calls(ModelSpans(), normal_rows(3, 0)))
        rig.clock.advance(1)
        deadline = time.monotonic() + 10
        while not rig.metrics.items and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rig.metrics.items


def test_several_requests_in_one_chunk() -> None:
    """Concatenated requests are one message: all spans are enriched."""
    with Rig() as rig:
        one, two = calls(ModelSpans(seed=1), normal_rows(2, 0)), calls(ModelSpans(seed=2), normal_rows(3, 1))
        spans = rig.send(Chunk(Signal.TRACES, one.data + two.data, 5))
        assert len(spans) == 5
        assert all("ml.input.summary" in values_of(span) for span in spans)
        assert spans_of(one)[0].end_time_unix_nano == START
