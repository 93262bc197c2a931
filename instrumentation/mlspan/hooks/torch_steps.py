"""Inside one torch call: the calls of named submodules as child spans, where the user asks for them.

Reads a submodule's call, writes its span: shape and dtype of the result, and on the CPU a summary of at most SAMPLE of
its values. Guarantee: the result is not changed, kept or, on a device, read: there two CUDA events a step tell its
time, and its span is ended by `deferred` once they have fired. Within compiled modules there are no steps. Memory: as
`mlspan.steps`, and two events for each step that waits.
"""

from collections.abc import Callable
from time import time_ns
from typing import Any, Final

import numpy as np

from mlspan.deferred import Job, deferred
from mlspan.guard import failed, guarded
from mlspan.hooks.torch_modules import table
from mlspan.inputs.torch_values import PLAIN_TENSORS, array_of, children, is_on_host, is_tensor, kind_of, plain
from mlspan.semconv import attributes as names
from mlspan.steps import SECOND, Part, Step, Steps

SAMPLE: Final = 4_096
"""Values of one result that its summary is made of, evenly spaced."""
MAX_CHILDREN: Final = 1_024
_LISTS: Final = ("ModuleList", "ModuleDict")
_MILLISECOND: Final = 1e-3


def parts_of(module: object) -> list[Part]:
    """Names and submodules; those in lists, which are never called themselves, by list and place."""
    found: list[Part] = []
    for name, child in table(module, "_modules").items():
        if child is None:
            continue
        if type(child).__name__ in _LISTS:
            found.extend((f"{name}.{key}", part) for key, part in parts_of(child))
        else:
            found.append((name, child))
        if len(found) >= MAX_CHILDREN:
            break
    return found[:MAX_CHILDREN]


class _Timed:
    """A step on a device: its events, and what its span waits for."""

    __slots__ = ("attributes", "begun", "device", "done", "end_time", "nested", "step")

    def __init__(self, step: Step, begun: Any, device: Any) -> None:
        self.step = step
        self.device = device
        self.begun = begun
        self.done: Any = None
        self.attributes: dict[str, Any] = {}
        self.end_time = 0
        self.nested: list[_Timed] = []


class Within:
    """Stands for the outermost call while its steps are spans: to the wrapper each submodule looks outermost.

    Attributes:
        steps: of the call.
        active: False, so that the wrapper hands the submodules' calls to us.
    """

    __slots__ = ("active", "steps")

    def __init__(self, steps: "TorchSteps") -> None:
        self.active = False
        self.steps = steps


class TorchSteps:
    """The steps of one outermost call.

    Args:
        steps: makes the spans.
        torch: the module.
        has_summaries: whether anything may be told of values.
    """

    def __init__(self, steps: Steps, torch: Any, has_summaries: bool) -> None:
        self.steps = steps
        self._has_summaries = has_summaries
        self._torch = torch
        self._waiting: list[_Timed] = []
        self._running: list[_Timed] = []

    def run(self, original: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A submodule's call, in a span if it is one of a part."""
        shape = _shape(args)
        step = self.steps.begin("forward", module, shape)
        timed = None if step is None else self._start(step, args)
        try:
            result = original(module, *args, **kwargs)
        except BaseException as error:
            if step is not None:
                if timed is not None:
                    self._drop()
                self.steps.fail(step, error)
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            raise
        if step is not None:
            end_time = time_ns()
            attributes = self._attributes(result)
            if timed is None:
                self.steps.end(step, attributes, end_time)
            else:
                self._stop(timed, attributes, end_time)
        return result

    @guarded("torch: steps", False)
    def finish(self) -> bool:
        """The outermost call is over: spans that wait for the device are ended when it is done. Whether any do."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return False

        def wait() -> None:
            for timed in waiting:
                timed.done.synchronize()

        def work(is_there: bool) -> None:
            for timed in waiting:
                _end(timed, is_there)

        if not deferred.put(Job(work, wait)):
            work(False)
        return True

    def _start(self, step: Step, args: tuple[Any, ...]) -> _Timed | None:
        """Its first event, where it works on a device."""
        try:
            device = _device(args)
            cuda = self._torch.cuda
            if device is None or device.type != "cuda" or cuda.is_current_stream_capturing():
                return None
            timed = _Timed(step, cuda.Event(enable_timing=True), device)
            timed.begun.record(cuda.current_stream(device))
        except Exception:  # noqa: BLE001 - the user's call goes on without us
            failed("torch: step")
            return None
        if self._running:
            self._running[-1].nested.append(timed)
        self._running.append(timed)
        return timed

    def _stop(self, timed: _Timed, attributes: dict[str, Any], end_time: int) -> None:
        step = timed.step
        self._running.pop()
        try:
            timed.done = self._torch.cuda.Event(enable_timing=True, blocking=True)  # the thread that waits sleeps
            timed.done.record(self._torch.cuda.current_stream(timed.device))
            own = max(end_time - step.since - step.nested, 0) * SECOND
            timed.attributes = {**attributes, names.ML_STEP_SELF_TIME: own}
            timed.end_time = end_time
            self._waiting.append(timed)
            self.steps.leave(step)
            self.steps.count(step)
        except Exception:  # noqa: BLE001 - the user has his result
            failed("torch: step")

    def _drop(self) -> None:
        """The step raised: its time on the device is the outer step's own."""
        self._running.pop()
        if self._running:
            self._running[-1].nested.pop()

    def _attributes(self, result: Any) -> dict[str, Any]:
        """What is told of a result."""
        found: dict[str, Any] = {}
        try:
            tensor = _first(result)
            if tensor is not None:
                found[names.ML_STEP_OUTPUT_SHAPE] = tuple(tensor.shape)
                found[names.ML_STEP_OUTPUT_DTYPE] = str(tensor.dtype).removeprefix("torch.")
                if self._has_summaries:
                    found.update(summary(tensor))
        except Exception:  # noqa: BLE001 - tensors of unknown kinds: what was found must do
            return found
        return found


def summary(tensor: Any) -> dict[str, float]:
    """Mean, standard deviation, share of zeros and of non-finite values; nothing where values cannot be read now."""
    if type(tensor) not in PLAIN_TENSORS or not is_on_host(tensor) or tensor.is_sparse or tensor.is_complex():
        return {}
    count = tensor.numel()
    if not count:
        return {}
    tensor = tensor.detach()
    step = -(-count // SAMPLE)
    if kind_of(tensor.dtype) in "fib" and not tensor.is_neg():
        values = array_of(tensor).flat[::step].astype(np.float64)
    elif tensor.is_contiguous():
        values = array_of(plain(tensor.view(-1)[::step])).astype(np.float64)
    else:
        return {}
    finite = np.isfinite(values)
    number = int(finite.sum())
    found = {
        names.ML_STEP_OUTPUT_ZEROS: float((values == 0).mean()),
        names.ML_STEP_OUTPUT_NON_FINITE: 1 - number / len(values),
    }
    if number:
        values = values if number == len(values) else values[finite]
        found[names.ML_STEP_OUTPUT_MEAN] = float(values.mean())
        found[names.ML_STEP_OUTPUT_STD] = float(values.std())
    return found


def is_compiled(module: Any) -> bool:
    """Whether what the module does is compiled: nothing within it is called as it looks."""
    if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
        return True
    return type(module).__module__.startswith(("torch.jit", "torch.fx"))


@guarded("torch: step", None)
def _end(timed: _Timed, is_there: bool) -> None:
    """The step's span, with its time on the device if that is known."""
    try:
        if is_there:
            inner = sum(part.begun.elapsed_time(part.done) for part in timed.nested)
            own = max(timed.begun.elapsed_time(timed.done) - inner, 0.0)
            timed.attributes[names.ML_STEP_DEVICE_SELF_TIME] = own * _MILLISECOND
    finally:
        timed.step.span.set_attributes(timed.attributes)
        timed.step.span.end(timed.end_time)


def _device(args: tuple[Any, ...]) -> Any:
    """Where the first tensor among the arguments is; or None."""
    tensor = next((value for value in args if is_tensor(value)), None)
    return None if tensor is None else tensor.device


def _first(value: Any, depth: int = 2) -> Any:
    """The first tensor of a result."""
    if is_tensor(value):
        return value
    if depth:
        for _, child in children(value):
            found = _first(child, depth - 1)
            if found is not None:
                return found
    return None


def _shape(args: tuple[Any, ...]) -> tuple[int, ...] | None:
    try:
        tensor = next((value for value in args if is_tensor(value)), None)
        return None if tensor is None else tuple(tensor.shape)
    except Exception:  # noqa: BLE001 - tensors of unknown kinds
        return None
