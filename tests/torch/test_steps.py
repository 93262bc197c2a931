"""Inside a torch model: child spans of its submodules, where the user asks for them, and only then."""

import copy
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mlspan
from mlspan import runtime
from mlspan.deferred import deferred
from mlspan.hooks import torch_steps
from mlspan.hooks.torch_steps import parts_of, summary
from mlspan.slow import DETAILED_CALLS
from mlspan.steps import MAX_SPANS
from tests.torch.conftest import Recorder

Hook = Callable[..., Recorder]


class Net(nn.Module):
    """Two layers in a list, and a head of three parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8)])
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities."""
        for layer in self.layers:
            x = layer(x)
        found: torch.Tensor = self.head(x)
        return found


def _net() -> Any:
    """A model whose first span, which has no steps, is over."""
    model = Net().eval()
    with torch.no_grad():
        model(torch.zeros(1, 4))
    return model


def _steps(recorder: Recorder) -> list[Any]:
    """Step spans in the order of their starts."""
    deferred.drain()
    spans: list[Any] = [span for span in recorder.spans() if "ml.step.path" in (span.attributes or {})]
    return sorted(spans, key=lambda span: span.start_time)


def _paths(recorder: Recorder) -> list[str]:
    return [span.attributes["ml.step.path"] for span in _steps(recorder)]


@torch.no_grad()
def test_no_steps_by_default(hook: Hook) -> None:
    """Without the setting a root call is one span."""
    recorder = hook()
    model = _net()
    recorder.spans()
    model(torch.zeros(1, 4))
    assert recorder.names() == ["predict Net"]


@torch.no_grad()
def test_submodules(hook: Hook) -> None:
    """Submodules to the depth asked for are children by their names, each below what called it."""
    recorder = hook(capture_steps=2)
    model = _net()
    recorder.spans()
    model(torch.zeros(1, 4))
    spans = {(span.attributes or {}).get("ml.step.path", ""): span for span in recorder.spans()}
    assert sorted(spans) == ["", "head", "head.0", "head.1", "head.2", "layers.0", "layers.1"]  # type: ignore[type-var]
    for path, above in (("layers.1", ""), ("head", ""), ("head.2", "head")):
        parent, context = spans[path].parent, spans[above].get_span_context()
        assert parent is not None
        assert context is not None
        assert parent.span_id == context.span_id
    assert (spans["layers.0"].name, spans["head.2"].name) == ("forward layers.0", "forward 2")


@torch.no_grad()
def test_attributes(hook: Hook) -> None:
    """A step has shapes, dtype, its own time and a summary of its result, of these types."""
    recorder = hook(capture_steps=1)
    model = _net()
    recorder.spans()
    model(torch.ones(5, 4))
    head = _steps(recorder)[-1]
    attributes = dict(head.attributes)
    numbers = {name: attributes.pop(name) for name in list(attributes) if isinstance(attributes[name], float)}
    assert attributes == {
        "ml.operation.name": "forward",
        "ml.step.name": "head",
        "ml.step.path": "head",
        "ml.step.class": "torch.nn.modules.container.Sequential",
        "ml.step.input.shape": (5, 8),
        "ml.step.output.shape": (5, 3),
        "ml.step.output.dtype": "float32",
    }
    assert sorted(numbers) == [
        *("ml.step.output.mean", "ml.step.output.non_finite", "ml.step.output.std", "ml.step.output.zeros"),
        "ml.step.self_time",
    ]
    assert numbers["ml.step.output.mean"] == pytest.approx(1 / 3)
    assert head.instrumentation_scope.name == "mlspan.steps"


def test_summary() -> None:
    """Mean and deviation of finite values, shares of zeros and of the others; large, narrow and strided tensors too."""
    values = torch.tensor([0.0, 0.0, 3.0, 5.0, float("nan"), float("inf"), float("-inf"), 0.0])
    found = summary(values)
    assert list(found.values()) == pytest.approx([3 / 8, 3 / 8, 1.6, 2.0591260])
    large = torch.arange(1_000_000, dtype=torch.float32)
    assert summary(large)["ml.step.output.mean"] == pytest.approx(500_000, rel=0.01)
    for odd in (
        large.reshape(1000, 1000).T,
        large.bfloat16(),
        large.to(torch.int64),
        large.reshape(1000, 1000)[:, ::2],
    ):
        assert summary(odd)["ml.step.output.mean"] == pytest.approx(500_000, rel=0.01)
    for none in (torch.empty(0), torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64), large.to("meta")):
        assert summary(none) == {}
    assert summary(torch.full((3,), float("nan"))) == {
        "ml.step.output.zeros": 0.0,
        "ml.step.output.non_finite": 1.0,
    }


@torch.no_grad()
def test_values_stay_where_they_are_not_to_leave(hook: Hook) -> None:
    """Without content, or with a capture hook, a step tells shapes and no values."""
    for options in ({"capture_content": False}, {"capture_hook": lambda *_: None}):
        recorder = hook(capture_steps=1, **options)
        model = _net()
        model(torch.ones(1, 4))
        for span in _steps(recorder):
            assert not any(name.startswith("ml.step.output.m") for name in span.attributes)
            assert "ml.step.output.shape" in span.attributes
        mlspan.uninstrument()


@torch.no_grad()
def test_bound(hook: Hook) -> None:
    """At most so many steps are spans; the call's span counts the others."""
    recorder = hook(capture_steps=1)
    model = nn.Sequential(*(nn.ReLU() if at % 2 else nn.Linear(2, 2) for at in range(200))).eval()
    model(torch.ones(1, 2))
    recorder.spans()
    model(torch.ones(1, 2))
    deferred.drain()
    spans = recorder.spans()
    assert len(spans) == MAX_SPANS + 1
    (root,) = [span for span in spans if span.name == "predict Sequential"]
    assert (root.attributes or {})["ml.steps.dropped"] == 200 - MAX_SPANS


def test_error_in_a_step(hook: Hook) -> None:
    """The submodule that raised and the call are errors; the traceback has torch's and the user's frames only."""
    recorder = hook(capture_steps=2)
    model = _net()
    recorder.spans()
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes") as caught:
        model(torch.zeros(1, 5))
    failed = {span.name: dict(span.attributes or {}) for span in recorder.spans() if not span.status.is_ok}
    assert set(failed) == {"forward layers.0", "predict Net"}
    assert failed["forward layers.0"]["error.type"] == "RuntimeError"
    assert not any("/mlspan/" in frame.filename for frame in traceback.extract_tb(caught.value.__traceback__))
    with torch.no_grad():
        model(torch.zeros(1, 4))
    assert len(_steps(recorder)) == 6


@torch.no_grad()
def test_results_and_copies_stay(hook: Hook) -> None:
    """Results, state, pickles and copies are the same with steps."""
    torch.manual_seed(1)
    model = Net().eval()
    x = torch.randn(3, 4)
    before, packed = model(x), pickle.dumps(model)
    hook(capture_steps=3)
    model(x)
    assert torch.equal(model(x), before)
    assert pickle.dumps(model) == packed
    assert torch.equal(copy.deepcopy(model)(x), before)


def test_gradients_flow(hook: Hook) -> None:
    """A step leaves results that require gradients as they are."""
    hook(capture_steps=2)
    model = Net().eval()
    for _ in range(2):
        model.zero_grad()
        model(torch.ones(2, 4))[0, 0].backward()
        assert model.head[1].weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@torch.no_grad()
def test_scripted_models_have_no_steps(hook: Hook) -> None:
    """Within a scripted model there are none, and a scripted part is one."""
    recorder = hook(capture_steps=3)
    scripted: Any = torch.jit.trace(Net().eval(), torch.zeros(1, 4))
    recorder.spans()
    for _ in range(2):
        scripted(torch.zeros(1, 4))
    assert _paths(recorder) == []
    model = nn.Sequential(scripted).eval()
    for _ in range(2):
        model(torch.zeros(1, 4))
    assert _paths(recorder) == ["0"]


@torch.no_grad()
def test_compiled_parts(hook: Hook) -> None:
    """A compiled model has no steps; a compiled part is one, without any within it."""
    recorder = hook(capture_steps=3)
    net = Net().eval()
    compiled: Any = torch.compile(net, backend="eager")
    for _ in range(3):
        compiled(torch.zeros(1, 4))
    assert _paths(recorder) == []
    model = nn.Sequential(compiled, nn.ReLU()).eval()
    for _ in range(2):
        model(torch.zeros(1, 4))
    assert _paths(recorder)[-2:] == ["0", "1"]


@torch.no_grad()
def test_one_model_only(hook: Hook) -> None:
    """`instrument_model` asks for steps of one model; direct calls of its forward have them too."""
    recorder = hook()
    one, other = _net(), _net()
    mlspan.instrument_model(one, steps=1)
    one(torch.zeros(1, 4))
    recorder.spans()
    other(torch.zeros(1, 4))
    assert _paths(recorder) == []
    one(torch.zeros(1, 4))
    assert _paths(recorder) == ["layers.0", "layers.1", "head"]
    one.forward(torch.zeros(1, 4))
    assert _paths(recorder) == ["layers.0", "layers.1", "head"]


@torch.no_grad()
def test_calls_after_a_slow_one(hook: Hook) -> None:
    """A slow call is marked, and the next ones have steps."""
    recorder = hook()
    model = _net()
    model(torch.zeros(1, 4))
    running = runtime.current()
    assert running is not None
    state = running.emitter.models.entries[id(model)].fitted
    assert state is not None
    assert state.latencies is not None
    table = state.latencies.single["predict"]
    table.threshold = 1
    deferred.drain()
    recorder.spans()
    model(torch.zeros(1, 4))
    table.threshold = 1 << 62
    (span,) = recorder.spans()
    assert (span.attributes or {})["ml.call.slow"] is True
    for _ in range(DETAILED_CALLS):
        model(torch.zeros(1, 4))
        assert len(_steps(recorder)) == 6
    model(torch.zeros(1, 4))
    assert _steps(recorder) == []


def test_names_of_parts() -> None:
    """Modules in lists and dictionaries have their list's name and their place; lists within lists too."""
    model = nn.Module()
    model.a = nn.ModuleList([nn.ModuleDict({"x": nn.ReLU()}), nn.Tanh()])
    model.b = nn.Sequential(nn.ReLU())
    model.c = None
    assert [name for name, _ in parts_of(model)] == ["a.0.x", "a.1", "b"]


class FakeEvent:
    """As a CUDA event: each comes a millisecond after the one before."""

    now = 0.0

    def __init__(self, enable_timing: bool, blocking: bool = False) -> None:
        assert enable_timing
        self.at = -1.0

    def record(self, stream: object) -> None:
        """Now."""
        FakeEvent.now += 1
        self.at = FakeEvent.now

    def elapsed_time(self, other: "FakeEvent") -> float:
        """Milliseconds."""
        assert min(self.at, other.at) > 0
        return other.at - self.at

    def synchronize(self) -> None:
        """Nothing to wait for."""


@torch.no_grad()
def test_device_times_by_fake_events(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times on a device are those between two events a step, without the steps within; a step that raises has none."""
    recorder = hook(capture_steps=2)
    model = _net()
    recorder.spans()
    monkeypatch.setattr(torch_steps, "_device", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    model(torch.zeros(1, 4))
    times = {span.attributes["ml.step.path"]: span.attributes["ml.step.device.self_time"] for span in _steps(recorder)}
    one = pytest.approx(0.001)
    assert times == {"layers.0": one, "layers.1": one, "head": pytest.approx(0.004)} | {
        f"head.{at}": one for at in range(3)
    }
    with pytest.raises(RuntimeError, match="shapes"):
        model(torch.zeros(1, 5))
    (broken,) = _steps(recorder)
    assert "ml.step.device.self_time" not in broken.attributes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_device_times(hook: Hook) -> None:
    """On a GPU each step says how long the device worked on it, without the steps within; no values are read."""
    recorder = hook(capture_steps=2)
    model = Net().eval().cuda()
    x = torch.randn(4096, 4, device="cuda")
    for _ in range(3):
        model(x)
        deferred.drain()
    recorder.spans()
    model(x)
    spans = {span.attributes["ml.step.path"]: span for span in _steps(recorder)}
    assert len(spans) == 6
    for span in spans.values():
        assert 0 <= span.attributes["ml.step.device.self_time"] < 1
        assert "ml.step.output.mean" not in span.attributes
        assert span.attributes["ml.step.self_time"] > 0
