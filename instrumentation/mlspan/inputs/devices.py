"""Stage 2, capture: values of tensors on a device, without making the user's program wait for it.

Reads tensors on a device, writes arrays that are there once an event has fired. On the user's own stream rows are
picked into new tensors, in order with his work; a second stream, which waits for that, copies them to pinned memory.
Guarantee: nothing waits for the user's stream on the host; while a CUDA graph is recorded nothing is read at all.
Memory: one stream and at most MAX_CONSTANTS small index tensors a device; the pinned memory is torch's own cache's.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.torch_values import array_of

MAX_CONSTANTS: Final = 256


class Transfer(Protocol):
    """Values on their way."""

    def wait(self) -> None:
        """Return when they are there."""

    def arrays(self) -> list[NDArray[Any]]:
        """They; to be asked for after `wait`."""


class Device(Protocol):
    """Where tensors are that the host cannot read at once."""

    def is_readable(self) -> bool:
        """Whether work may be given to it now."""

    def move(self, positions: NDArray[Any], is_constant: bool) -> Any:
        """An index array as a tensor there; a constant one is kept."""

    def fetch(self, tensors: list[Any]) -> Transfer:
        """Begin to copy these tensors, which are ours, to the host."""


class Cuda:
    """One CUDA device.

    Args:
        torch: the module.
        device: its `torch.device`.
    """

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch = torch
        self._device = device
        self._stream: Any = None
        self._constants: dict[int, tuple[NDArray[Any], Any]] = {}

    def is_readable(self) -> bool:
        """Whether no graph is being recorded on the user's stream."""
        return not self._torch.cuda.is_current_stream_capturing()

    def move(self, positions: NDArray[Any], is_constant: bool) -> Any:
        """The array there, by way of pinned memory: from any other the copy would wait."""
        if is_constant:
            found = self._constants.get(id(positions))
            if found is not None and found[0] is positions:
                return found[1]
        there = self._torch.from_numpy(np.ascontiguousarray(positions)).pin_memory()
        there = there.to(self._device, non_blocking=True)
        if is_constant:
            if len(self._constants) >= MAX_CONSTANTS:
                self._constants.clear()
            self._constants[id(positions)] = (positions, there)
        return there

    def fetch(self, tensors: list[Any]) -> "CudaTransfer":
        """Copy them on the second stream."""
        cuda = self._torch.cuda
        if self._stream is None:
            self._stream = cuda.Stream(self._device)
        picked = cuda.Event()
        picked.record(cuda.current_stream(self._device))
        with cuda.stream(self._stream):
            self._stream.wait_event(picked)
            hosts = []
            for tensor in tensors:
                host = self._torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
                hosts.append(host.copy_(tensor, non_blocking=True))
            done = cuda.Event(blocking=True)  # the thread that waits sleeps
            done.record(self._stream)
        return CudaTransfer(done, hosts, tensors)


class CudaTransfer:
    """Copies on a stream; keeps what is copied until they are done."""

    __slots__ = ("_done", "_hosts", "_kept")

    def __init__(self, done: Any, hosts: list[Any], kept: list[Any]) -> None:
        self._done = done
        self._hosts = hosts
        self._kept = kept

    def wait(self) -> None:
        """Return when the event has fired."""
        self._done.synchronize()
        self._kept = []

    def arrays(self) -> list[NDArray[Any]]:
        """The values, in pinned memory."""
        return [array_of(host) for host in self._hosts]


KINDS: Final[dict[str, Callable[[Any, Any], Device]]] = {"cuda": Cuda}
"""Type of a torch device -> how it is read."""

_devices: dict[Any, Device] = {}


def device_of(tensor: Any) -> Device | None:
    """How the tensor's device is read; None for the host itself."""
    place = tensor.device
    if place.type not in KINDS:
        return None
    found = _devices.get(place)
    if found is None:
        found = _devices[place] = KINDS[place.type](sys.modules["torch"], place)
    return found
