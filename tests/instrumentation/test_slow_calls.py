"""Slow calls: when a call is called slow, and what is looked at in the calls after it."""

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlspan import details, runtime
from mlspan.models import State
from mlspan.slow import (
    DETAILED_CALLS,
    IN_A_ROW,
    MAX_COUNT,
    MAX_TABLES,
    MIN_CALLS,
    SECONDS_BETWEEN,
    Histogram,
    Latencies,
)
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]
Hook = Callable[..., Recorder]


class Clock:
    """Seconds, as the test says."""

    now = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def test_percentile() -> None:
    """The 99th percentile is at most one bin, an eighth, above the true one, for durations of very different sizes."""
    for scale in (3.0, 9.0, 14.0, 20.0):
        durations = np.random.default_rng(1).lognormal(scale, 0.7, MAX_COUNT - 1).astype(int) + 1
        found = Histogram()
        for duration in durations.tolist():
            found.count(duration)
        true = float(np.quantile(durations, 0.99))
        assert true * 0.97 - 1 <= found.threshold <= true * 1.16 + 1


def test_share_of_slow_calls() -> None:
    """About one call in a hundred of an unchanging model is slow, and none before enough are known."""
    durations = np.random.default_rng(2).lognormal(12, 1, 20_000).astype(int).tolist()
    latencies = Latencies()
    assert not any(latencies.note("predict", 1, duration) for duration in durations[:MIN_CALLS])
    slow = sum(latencies.note("predict", 1, duration) > 0 for duration in durations[MIN_CALLS:])
    assert 0.004 < slow / (len(durations) - MIN_CALLS) < 0.016


def test_percentile_follows() -> None:
    """A model that has become ten times slower is no longer slow by its old measure after a while."""
    latencies = Latencies()
    for _ in range(5_000):
        latencies.note("predict", 1, 1_000_000)
    assert latencies.note("predict", 1, 10_000_000) > 0
    for _ in range(500):
        latencies.note("predict", 1, 10_000_000)
    assert latencies.note("predict", 1, 10_000_000) == 0


def test_a_model_that_became_slower_is_learnt_anew() -> None:
    """A few dozen slow calls in a row are the model's new pace: those after them are not slow."""
    latencies = Latencies()
    counted, passed = 1 << 5, (1 << 5) + 1  # what the clock says at the end of calls that are, and are not
    for _ in range(MIN_CALLS):
        latencies.note("predict", 1, 1_000_000, counted)
    slow = [latencies.note("predict", 1, 2_000_000, passed) > 0 for _ in range(2 * IN_A_ROW)]
    assert slow == [True] * IN_A_ROW + [False] * IN_A_ROW
    for _ in range(MIN_CALLS):
        latencies.note("predict", 1, 2_000_000, counted)
    assert latencies.note("predict", 1, 4_000_000, passed) > 0


def test_quick_calls_between_slow_ones() -> None:
    """Slow calls that quick ones interrupt stay slow."""
    latencies = Latencies()
    for _ in range(MIN_CALLS):
        latencies.note("predict", 1, 1_000_000)
    for _ in range(4):
        assert all(latencies.note("predict", 1, 9_000_000, 1) for _ in range(IN_A_ROW - 1))
        assert latencies.note("predict", 1, 1_000_000, 1) == 0


def test_sizes_and_methods_are_apart() -> None:
    """A large batch is not slow for being large, nor another method for being another; tables are bounded."""
    latencies = Latencies()
    for _ in range(MIN_CALLS):
        latencies.note("predict", 1, 1_000)
    assert latencies.note("predict", 1, 9_000) > 0
    assert latencies.note("predict", 1_000, 900_000) == 0
    assert latencies.note("predict_proba", 1, 9_000) == 0
    for power in range(40):
        assert latencies.note("predict", 1 << power, 10) == 0
    assert len(latencies._tables) == MAX_TABLES


def test_odd_durations() -> None:
    """Zero, negative and endless durations are counted somewhere, and nothing raises."""
    found = Histogram()
    for duration in (0, -5, 1, 7, 8, 15, 16, 1 << 70) * MIN_CALLS:
        found.count(duration)
    assert found.threshold > 0


def _slow(recorder: Recorder, model: Any, X: Any) -> tuple[State, ReadableSpan]:
    """Make the model's next call slow: its state, and that call's span."""
    model.predict(X[:1])
    running = runtime.current()
    assert running is not None
    state = running.emitter.models.entries[id(model)].fitted
    assert state is not None
    assert state.latencies is not None
    table = state.latencies.single["predict"]
    table.threshold = 1
    recorder.spans()
    model.predict(X[:1])
    table.threshold = 1 << 62
    (span,) = recorder.spans()
    return state, span


def _model(data: Data) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)


def test_slow_span(hook: Hook, data: Data) -> None:
    """A slow call says so, and what the percentile was; others have neither."""
    recorder = hook()
    model = _model(data)
    _, span = _slow(recorder, model, data[0])
    attributes = dict(span.attributes or {})
    assert (attributes["ml.call.slow"], attributes["ml.call.p99"]) == (True, 1e-9)
    assert next(iter(attributes)) == "ml.operation.name"
    assert list(attributes)[-1] == "ml.payload"


def test_calls_after_a_slow_one(hook: Hook, data: Data) -> None:
    """So many calls have steps and the memory before and after; then none have."""
    recorder = hook()
    model = _model(data)
    _slow(recorder, model, data[0])
    for _ in range(DETAILED_CALLS):
        model.predict(data[0][:1])
        spans = recorder.spans()
        assert [span.name for span in spans] == [
            *("transform standardscaler", "predict logisticregression", "predict Pipeline(LogisticRegression)"),
        ]
        root = dict(spans[-1].attributes or {})
        if sys.platform == "linux":
            before, after = root["ml.call.memory.before"], root["ml.call.memory.after"]
            assert isinstance(before, int)
            assert isinstance(after, int)
            assert before > 1 << 20
            assert after > 1 << 20
    model.predict(data[0][:1])
    (span,) = recorder.spans()
    assert not any(name.startswith("ml.call.") for name in span.attributes or {})


def test_rate_is_bounded(hook: Hook, data: Data) -> None:
    """A second slow call within a minute is marked, and begins no second capture; one after it does."""
    recorder = hook()
    running = runtime.current()
    assert running is not None
    clock = running.emitter.models.clock = Clock()
    model = _model(data)
    state, _ = _slow(recorder, model, data[0])
    for _ in range(DETAILED_CALLS):
        model.predict(data[0][:1])
    for now, expected in ((SECONDS_BETWEEN - 1, 0), (SECONDS_BETWEEN + 1, DETAILED_CALLS)):
        clock.now = now
        _, span = _slow(recorder, model, data[0])
        assert (span.attributes or {})["ml.call.slow"] is True
        assert state.details == expected


def test_switched_off(hook: Hook, data: Data) -> None:
    """With `capture_slow` off no duration is kept."""
    hook(capture_slow=False)
    model = _model(data)
    model.predict(data[0])
    running = runtime.current()
    assert running is not None
    state = running.emitter.models.entries[id(model)].fitted
    assert state is not None
    assert state.latencies is None


class FakeProfiler:
    """As much of pyinstrument's as is used; what was started and stopped."""

    running: list["FakeProfiler"]

    def __init__(self, interval: float, async_mode: str) -> None:
        assert (interval, async_mode) == (0.001, "disabled")

    def start(self) -> None:
        """Begin."""
        if type(self).running:
            raise RuntimeError("There is already a profiler running")
        type(self).running.append(self)

    def stop(self) -> Any:
        """End."""
        type(self).running.remove(self)
        thread, ours = "MainThread\0<thread>\x001", f"predict\0{details._OURS}emit.py\x0010\x01l12"
        answer, inner = "answer\0service.py\x003\x01l5", "dot\0<built-in>\x000"
        return types.SimpleNamespace(
            frame_records=[
                ([thread, answer, ours, inner], 0.25),
                ([thread, answer], 0.5),
                ([thread, answer, inner], 0.5),
            ]
        )


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> type[FakeProfiler]:
    """pyinstrument is there."""
    FakeProfiler.running = []
    monkeypatch.setitem(sys.modules, "pyinstrument", types.SimpleNamespace(Profiler=FakeProfiler))
    monkeypatch.setattr(sys, "getprofile", lambda: None)
    return FakeProfiler


def test_profile(hook: Hook, data: Data, profiler: type[FakeProfiler]) -> None:
    """Stacks are events of the call's span, the longest first, without our own frames."""
    recorder = hook()
    model = _model(data)
    _slow(recorder, model, data[0])
    model.predict(data[0][:1])
    root = recorder.spans()[-1]
    assert [(event.name, dict(event.attributes or {}), event.timestamp) for event in root.events] == [
        (
            "ml.profile",
            {
                "ml.profile.self_time": 0.75,
                "ml.profile.stack": 'File "service.py", line 5, in answer\nFile "<built-in>", line 0, in dot',
            },
            root.end_time,
        ),
        (
            "ml.profile",
            {
                "ml.profile.self_time": 0.5,
                "ml.profile.stack": 'File "service.py", line 5, in answer',
            },
            root.end_time,
        ),
    ]
    assert profiler.running == []


def test_profiler_ends_with_an_exception(hook: Hook, data: Data, profiler: type[FakeProfiler]) -> None:
    """A call that raises stops the profiler too."""
    recorder = hook()
    model = _model(data)
    _slow(recorder, model, data[0])
    with pytest.raises(ValueError, match="features"):
        model.predict(data[0][:1, :2])
    assert profiler.running == []
    assert recorder.spans()[-1].events


def test_profiler_of_the_user(hook: Hook, data: Data, profiler: type[FakeProfiler]) -> None:
    """Where the user profiles already, his profiler goes on and there is no second one."""
    recorder = hook()
    model = _model(data)
    _slow(recorder, model, data[0])
    own = FakeProfiler(0.001, "disabled")
    own.start()
    model.predict(data[0][:1])
    assert profiler.running == [own]
    assert recorder.spans()[-1].events == ()


def test_real_profiler(hook: Hook, data: Data) -> None:
    """With pyinstrument itself a call of some milliseconds has stacks of its own code."""
    pytest.importorskip("pyinstrument")
    if sys.getprofile() is not None:
        pytest.skip("the thread is profiled already")
    recorder = hook()
    model = _model(data)
    _slow(recorder, model, data[0])
    model.predict(np.tile(data[0], (20_000, 1)))
    events = recorder.spans()[-1].events
    assert events
    assert "predict" in str([event.attributes for event in events])
