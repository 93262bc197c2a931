"""Values on a device: the span's times are the call's, its values come later, and nobody waits for them."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opentelemetry import trace

import mlspan
from mlspan.deferred import deferred
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Answers, Mlp, conv_net, softmax_net
from tests.torch.payloads import Seen, last

X = torch.arange(12.0).reshape(3, 4)


class FakeDevice:
    """A device whose copies arrive when the test says so; its tensors are on the CPU."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.readable = True
        self.fetched: list[list[Any]] = []
        self.fails = False

    def is_readable(self) -> bool:
        """No graph is recorded."""
        return self.readable

    def move(self, positions: NDArray[Any], is_constant: bool) -> Any:
        """Already there."""
        return torch.from_numpy(np.ascontiguousarray(positions))

    def fetch(self, tensors: list[Any]) -> "FakeTransfer":
        """Their values are read when they arrive, as those of a copy on a stream are."""
        self.fetched.append(tensors)
        return FakeTransfer(self, tensors)


class FakeTransfer:
    """Copies on their way."""

    def __init__(self, device: FakeDevice, tensors: list[Any]) -> None:
        self._device = device
        self._tensors = tensors

    def wait(self) -> None:
        """Until the test lets them arrive."""
        assert self._device.arrived.wait(30)
        if self._device.fails:
            raise RuntimeError("device lost")

    def arrays(self) -> list[NDArray[Any]]:
        """The values."""
        return [tensor.numpy() for tensor in self._tensors]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    """Tensors seem to be on a device."""
    fake = FakeDevice()
    find: Any = lambda _: fake  # noqa: E731 - typed
    for place in ("mlspan.tensor_capture.device_of", "mlspan.hooks.torch_spans.device_of"):
        monkeypatch.setattr(place, find)
    monkeypatch.setattr("mlspan.inputs.tensors.is_on_host", lambda _: False)
    monkeypatch.setattr("mlspan.hooks.torch_spans.is_on_host", lambda _: False)
    yield fake
    fake.arrived.set()
    assert deferred.drain(10)


def arrive(device: FakeDevice) -> None:
    """Let all copies arrive, and the spans end."""
    device.arrived.set()
    assert deferred.drain(10)
    device.arrived.clear()


def test_the_span_waits_for_its_values(hooked: Recorder, device: FakeDevice) -> None:
    """The call returns at once; the span ends when the values are here, with the call's own times and parent."""
    model = softmax_net()
    tracer = hooked.provider.get_tracer("t")
    for _ in range(2):  # the first call of a model, and a later one
        with torch.no_grad(), tracer.start_as_current_span("request"):
            before = time.time_ns()
            expected = model(X)
            after = time.time_ns()
        (request,) = hooked.spans()
        time.sleep(0.01)
        arrive(device)
        seen = last(hooked)
        assert seen.span.parent is not None
        assert request.context is not None
        assert seen.span.parent.span_id == request.context.span_id
        assert before <= (seen.span.start_time or 0) <= (seen.span.end_time or 0) <= after
        assert np.array_equal(seen.cells, X)
        assert seen.payload is not None
        assert np.allclose(seen.payload.scores, expected)
        assert seen.scope["ml.prediction.classes"] == ("0", "1", "2")


def test_values_of_the_moment(hooked: Recorder, device: FakeDevice) -> None:
    """Input and output overwritten right after the call: the captured values are those of the call."""
    for shape in ((3, 4), (3, 3, 8, 8), (200, 4)):
        x, answer = torch.full(shape, 5.0), torch.full((shape[0], 1), 2.0)
        model = Answers(answer).eval()
        model(x)
        x.fill_(0)
        answer.fill_(0)
        arrive(device)
        seen = last(hooked)
        assert (seen.cells[:, 0] == 5).all()
        assert seen.payload is not None
        assert (seen.payload.predictions == 2).all()


def test_images_and_sampled_rows(hooked: Recorder, device: FakeDevice) -> None:
    """Only sampled rows and positions are fetched."""
    conv_net()(torch.rand(200, 3, 32, 32))
    sizes = [tensor.numel() for tensors in device.fetched for tensor in tensors]
    assert max(sizes) <= 80 * 512
    arrive(device)
    seen = last(hooked)
    assert seen.payload is not None
    assert seen.payload.total_rows == 200
    assert len(seen.cells) == len(seen.payload.scores) <= 80


def test_prediction_ids(hooked: Recorder, device: FakeDevice) -> None:
    """Ids are there when the call returns; the span carries them when it ends."""
    model = softmax_net()
    for _ in range(2):
        with mlspan.prediction_context(["a", "b", "c"]) as context:
            model(X)
        assert list(context.ids) == ["a", "b", "c"]
    with mlspan.prediction_context() as context:
        model(X)
    assert len(context.ids) == 3
    arrive(device)
    spans = [Seen(span) for span in hooked.spans()]
    assert spans[1].payload is None or spans[1].payload.ids == ("a", "b", "c")
    assert len(spans) == 3


def test_lost_device(hooked: Recorder, device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that fails costs the values, not the span."""
    monkeypatch.setattr("mlspan.guard._raise", False)
    device.fails = True
    Mlp().eval()(X)
    arrive(device)
    seen = last(hooked)
    assert seen.payload is None
    assert seen.attributes["ml.input.rows"] == 3


def test_recording_a_graph(hooked: Recorder, device: FakeDevice) -> None:
    """While a graph is recorded the device is asked for nothing."""
    device.readable = False
    Mlp().eval()(X)
    arrive(device)
    assert device.fetched == []
    seen = last(hooked)
    assert seen.attributes["ml.capture.error"] == "unsupported input: tensor while a graph is recorded"


def test_capture_hook(hook: Any, device: FakeDevice) -> None:
    """With a content hook nothing of a device's input is captured: the hook could not see it in time."""
    recorder = hook(capture_hook=lambda columns: columns)
    Mlp().eval()(X)
    arrive(device)
    seen = last(recorder)
    assert seen.attributes["ml.capture.error"] == "unsupported input: tensor on a device, with a capture hook"
    assert seen.payload is None


def test_exceptions(hooked: Recorder, device: FakeDevice) -> None:
    """A call that raises waits for nothing."""
    with pytest.raises(RuntimeError):
        Mlp().eval()(torch.ones(3, 5))
    assert last(hooked).attributes["error.type"] == "RuntimeError"


def test_a_sampled_out_first_call(hook: Any, device: FakeDevice) -> None:
    """A span that the sampler refuses when it is started late is none."""
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    recorder = hook(sampler=TraceIdRatioBased(1e-9))
    softmax_net()(X)
    arrive(device)
    assert recorder.names() == []
    assert not trace.get_current_span().is_recording()
