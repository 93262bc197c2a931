"""CUDA: what is asked of it, and, where there is a GPU, that values arrive and nobody waits for them."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlspan.deferred import deferred
from mlspan.inputs import devices
from mlspan.inputs.devices import Cuda, device_of
from tests.instrumentation.conftest import Recorder
from tests.torch.models import conv_net, softmax_net
from tests.torch.payloads import last

X = torch.arange(12.0).reshape(3, 4)
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

        self.cuda = SimpleNamespace(
            Event=Event, Stream=Stream, stream=lambda stream: stream, current_stream=lambda _: Stream(name="user")
        )

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
