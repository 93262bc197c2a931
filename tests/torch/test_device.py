"""Values on a device: the span's times are the call's, its values come later, and nobody waits for them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opentelemetry import trace

import mlspan
from mlspan import deferred as deferred_module
from mlspan.deferred import Deferred, Job, deferred
from mlspan.inputs import devices
from mlspan.inputs.devices import Cuda, device_of
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


def test_no_thread_before_the_first_value() -> None:
    """Importing, instrumenting and calls with columns on the CPU start no thread."""
    program = (
        "import threading, torch, mlspan; mlspan.instrument()\n"
        "torch.nn.Linear(1, 1).eval()(torch.ones(1, 1)); print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def _job(done: list[Any], wait: Callable[[], object] | None = None, name: object = None, **more: Any) -> Job:
    return Job(lambda is_there: done.append((name, is_there)), wait, **more)


def test_order_and_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done in order; more than MAX_WAITING, or of more bytes than may wait, are left to the caller."""
    monkeypatch.setattr(deferred_module, "MAX_WAITING", 3)
    jobs, go = Deferred(), threading.Event()
    done: list[Any] = []
    assert [jobs.put(_job(done, go.wait, at)) for at in range(5)] == [True] * 3 + [False] * 2
    go.set()
    assert jobs.drain(10)
    assert done == [(0, True), (1, True), (2, True)]
    assert not jobs.put(_job(done, size=1 << 40))
    assert jobs.is_empty


def test_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of one kind that come soon after each other are prepared at once, and done one by one, in order."""
    monkeypatch.setattr(deferred_module, "GATHER_SECONDS", 30)
    jobs = Deferred()
    done: list[Any] = []
    batches: list[list[Any]] = []
    together: Any = lambda subjects: batches.append(list(subjects))  # noqa: E731 - typed
    for at in range(5):
        jobs.put(_job(done, None, at, subject=at, together=together))
    assert jobs.drain(10)  # a flush does not wait for more to come
    assert done == [(at, True) for at in range(5)]
    assert [at for batch in batches for at in batch] == list(range(5))


def test_a_failing_job() -> None:
    """A job that fails does not end the thread, and what cannot be waited for is done without values."""
    jobs = Deferred()
    done: list[Any] = []

    def fail(*_: object) -> None:
        raise ValueError

    jobs.put(Job(fail))
    jobs.put(_job(done, fail, 1))
    jobs.put(_job(done, None, 2, together=fail))
    assert jobs.drain(10)
    assert done == [(1, False), (2, True)]


def test_drain_gives_up() -> None:
    """Draining waits no longer than it may."""
    jobs, go = Deferred(), threading.Event()
    jobs.put(_job([], go.wait))
    start = time.monotonic()
    assert not jobs.drain(0.05)
    assert time.monotonic() - start < 5
    go.set()
    assert jobs.drain(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork() -> None:
    """A forked child has no jobs of its parent, and a thread of its own for its own."""
    jobs, go = Deferred(), threading.Event()
    jobs.put(_job([], go.wait))
    child = os.fork()
    if child == 0:
        done: list[Any] = []
        is_idle = jobs.drain(0)
        jobs.put(_job(done))
        os._exit(0 if is_idle and jobs.drain(10) and done == [(None, True)] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert jobs.drain(10)


@pytest.mark.parametrize("way", ["force_flush", "shutdown"])
def test_flush_and_shutdown_of_the_provider(recorder: Recorder, way: str) -> None:
    """The provider's own flush and shutdown wait for summaries; uninstrumenting gives them back."""
    mlspan.instrument(tracer_provider=recorder.provider)
    model = conv_net()
    for _ in range(5):
        model(torch.rand(1, 3, 32, 32))
    getattr(recorder.provider, way)()
    spans = recorder.exporter.get_finished_spans()
    assert len(spans) == 5
    assert all("ml.payload" in (span.attributes or {}) for span in spans)
    mlspan.uninstrument()
    assert not {"force_flush", "shutdown"} & set(vars(recorder.provider))


def test_summaries_of_several_calls(hooked: Recorder) -> None:
    """Calls that are summarised together have the features that each has alone."""
    model = Answers(torch.zeros(2, 1)).eval()
    images = [torch.rand(2, 3, 20, 20) + at for at in range(8)]
    alone = []
    for x in images:
        model(x)
        alone.append(last(hooked).cells)
    for x in images:
        model(x)
    assert deferred.drain(10)
    assert all(np.allclose(Seen(span).cells, one) for span, one in zip(hooked.spans(), alone, strict=True))


def test_exit_drains() -> None:
    """What waits at the process's end is still done, before the SDK shuts down."""
    program = (
        "import threading, time\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, BatchSpanProcessor\n"
        "provider = TracerProvider(); provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))\n"
        "from mlspan.deferred import Job, deferred\n"
        "span = provider.get_tracer('t').start_span('late')\n"
        "deferred.put(Job(lambda there: span.end(), lambda: time.sleep(0.3)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert '"name": "late"' in done.stdout


def test_a_sampled_out_first_call(hook: Any, device: FakeDevice) -> None:
    """A span that the sampler refuses when it is started late is none."""
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    recorder = hook(sampler=TraceIdRatioBased(1e-9))
    softmax_net()(X)
    arrive(device)
    assert recorder.names() == []
    assert not trace.get_current_span().is_recording()


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@gpu
def test_cuda_values(hooked: Recorder) -> None:
    """On a GPU the captured values are those of the CPU."""
    for model, x in ((softmax_net(), torch.randn(300, 4)), (conv_net(), torch.randn(2, 3, 32, 32))):
        model.cuda()(x.cuda())
        assert deferred.drain(30)
        seen = last(hooked)
        assert seen.payload is not None
        rows = slice(None) if seen.payload.indices is None else seen.payload.indices.astype(int)
        with torch.no_grad():
            expected = model(x.cuda()).cpu().numpy()[rows]
        assert np.allclose(seen.payload.scores, expected, atol=1e-5)
        hooked.spans()


@pytest.mark.gpu
@gpu
def test_cuda_does_not_wait(hooked: Recorder) -> None:
    """Between call and return the host waits for nothing: no synchronisation and no blocking copy in the profile."""
    model, x = softmax_net().cuda(), torch.randn(4096, 4, device="cuda")
    for _ in range(3):
        model(x)
    assert deferred.drain(30)
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    main = threading.get_ident()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(10):
            model(x)
    assert main == threading.get_ident()
    waits = [
        event.name for event in profile.events() if event.name in {"cudaStreamSynchronize", "cudaDeviceSynchronize"}
    ]
    assert waits == []
    assert deferred.drain(30)


@pytest.mark.gpu
@gpu
def test_cuda_graph(hooked: Recorder) -> None:
    """A model is recorded into a CUDA graph as without us."""
    model, x = softmax_net().cuda(), torch.randn(8, 4, device="cuda")
    with torch.no_grad():
        model(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = model(x)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.allclose(result, model(x))


@pytest.mark.gpu
@gpu
def test_cuda_fingerprint(hooked: Recorder) -> None:
    """A model has the same version on a GPU as on the CPU."""
    model = softmax_net()
    model(X)
    model.cuda()(X.cuda())
    assert deferred.drain(30)
    assert len({(span.attributes or {})["ml.model.version"] for span in hooked.spans()}) == 1


def test_cuda_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor's device type says how it is read; the host needs nothing."""

    class Place:
        type = "cuda"

    class Tensor:
        device = Place()

    assert device_of(X) is None
    monkeypatch.setattr(devices, "_devices", {})
    assert isinstance(device_of(Tensor()), Cuda)


class _Log:
    """Stands for torch: notes what is asked of CUDA."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        log = self.calls

        class Event:
            def __init__(self, blocking: bool = False) -> None:
                self.blocking = blocking

            def record(self, stream: object) -> None:
                log.append(f"record on {stream}")

            def synchronize(self) -> None:
                log.append("wait for event")

        class Stream:
            def __init__(self, _: object = None, name: str = "side") -> None:
                self.name = name

            def wait_event(self, _: object) -> None:
                log.append(f"{self.name} waits for event")

            def __str__(self) -> str:
                return self.name

            def __enter__(self) -> None:
                log.append(f"enter {self.name}")

            def __exit__(self, *_: object) -> None:
                log.append(f"leave {self.name}")

        class cuda:
            pass

        cuda.Event, cuda.Stream = Event, Stream  # type: ignore[attr-defined]
        cuda.stream = staticmethod(lambda stream: stream)  # type: ignore[attr-defined]
        cuda.current_stream = staticmethod(lambda _: Stream(name="user"))  # type: ignore[attr-defined]
        self.cuda = cuda

    def empty(self, shape: Any, dtype: Any, device: str, pin_memory: bool) -> torch.Tensor:
        """Pinned memory on the host."""
        assert (device, pin_memory) == ("cpu", True)
        return torch.empty(shape, dtype=dtype)


def test_what_is_asked_of_cuda() -> None:
    """Copies go to a second stream that waits for the user's; the host waits for the copies' event alone."""
    log = _Log()
    cuda = Cuda(log, "cuda:0")
    transfer = cuda.fetch([X, X[:1]])
    assert log.calls == ["record on user", "enter side", "side waits for event", "record on side", "leave side"]
    transfer.wait()
    assert log.calls[-1] == "wait for event"
    assert np.array_equal(transfer.arrays()[1], X[:1])
