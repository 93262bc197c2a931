"""Inside one model call: the calls of its parts as child spans, where the user asks for them.

Reads each call of a part that a hook sees while the model's call runs; writes a span for it, below the span of what
made the call. Guarantee: only calls of the thread that called the model, at most MAX_SPANS in one call and
MAX_MEMBERS of one ensemble within one parent; what is over that is counted. No rows and no answers: shapes, times.
Step spans have a scope of their own (`mlspan.steps`), so that nobody takes them for calls of a model. Memory: the
parts' names, for as long as the call runs.
"""

import re
from collections.abc import Callable
from threading import get_ident
from time import time_ns
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Span, StatusCode, Tracer

from mlspan.details import Details
from mlspan.guard import failed
from mlspan.identity import read
from mlspan.semconv import attributes as names

SCOPE: Final = "mlspan.steps"
MAX_SPANS: Final = 64
MAX_MEMBERS: Final = 16
"""Child spans of one parent for parts of one kind: the members of an ensemble, the candidates of a search."""
MAX_LOOKS: Final = 32
"""How often the parts of one object are looked for again while it runs: a fit makes them as it goes."""
SECOND: Final = 1e-9

_SPAN: Final = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
_INDEX: Final = re.compile(r"[\[.]\d+\]?")

Part = tuple[str, object]
"""Name and object."""
Parts = Callable[[object], list[Part]]
Describe = Callable[[object], dict[str, Any]]


class Step:
    """One call of a part that runs; or, at the root, the model's own.

    Attributes:
        target: the object.
        path: names from the model down, with dots; "" at the root.
        level: 0 at the root.
        nested: nanoseconds within steps of this one.
        span: of the step.
    """

    __slots__ = ("counts", "level", "looks", "nested", "outer", "parts", "path", "since", "span", "target", "token")

    def __init__(self, target: object, path: str, level: int, outer: "Step | None", span: Span) -> None:
        self.target = target
        self.path = path
        self.level = level
        self.outer = outer
        self.span = span
        self.parts: list[Part] | None = None
        self.looks = 0
        self.counts: dict[str, int] = {}
        self.nested = 0
        self.since = 0
        self.token: Any = None


class Steps:
    """The steps of one call of a model.

    Args:
        tracer: makes the spans.
        model: that is called.
        span: of the call.
        depth: levels of parts within parts.
        parts: names the parts of an object.
        details: what else is looked at; or None.
        by_class: whether an object that is no part itself stands for the part of the same class, as clones do.

    Attributes:
        active: whether the model's call still runs.
        dropped: calls of parts that got no span, because there were too many.
    """

    __slots__ = (
        "_by_class",
        "_depth",
        "_left",
        "_parts",
        "_thread",
        "_tracer",
        "active",
        "current",
        "details",
        "dropped",
    )

    def __init__(
        self,
        tracer: Tracer,
        model: object,
        span: Span,
        depth: int,
        parts: Parts,
        by_class: bool = True,
        details: Details | None = None,
    ) -> None:
        self.details = details
        self._tracer = tracer
        self._depth = depth
        self._parts = parts
        self._by_class = by_class
        self._left = MAX_SPANS
        self._thread = get_ident()
        self.active = True
        self.dropped = 0
        self.current = Step(model, "", 0, None, span)

    def begin(self, operation: str, target: object, shape: tuple[int, ...] | None = None) -> Step | None:
        """A span for this call of an object, or None: it is no part, lies too deep, or there are too many already."""
        try:
            outer = self.current
            if outer.level >= self._depth or outer.target is target or get_ident() != self._thread or not self.active:
                return None
            name = self._name(outer, target)
            if name is None:
                return None
            family = _INDEX.sub("", name) + " " + operation
            count = outer.counts[family] = outer.counts.get(family, 0) + 1
            if not self._left or count > MAX_MEMBERS:
                self.dropped += 1
                return None
            self._left -= 1
            path = f"{outer.path}.{name}" if outer.path else name
            attributes: dict[str, Any] = {
                names.ML_OPERATION_NAME: operation,
                names.ML_STEP_NAME: name,
                names.ML_STEP_PATH: path,
                names.ML_STEP_CLASS: f"{type(target).__module__}.{type(target).__qualname__}",
            }
            if shape is not None:
                attributes[names.ML_STEP_INPUT_SHAPE] = shape
            since = time_ns()
            context = get_current()
            span = self._tracer.start_span(f"{operation} {name}", context, attributes=attributes, start_time=since)
            step = Step(target, path, outer.level + 1, outer, span)
            step.token = attach(Context({**context, _SPAN: span}))
            step.since = since
            self.current = step
        except Exception:  # noqa: BLE001 - the user's call goes on without us
            failed("steps: begin")
            return None
        return step

    def end(self, step: Step, attributes: dict[str, Any], end_time: int) -> None:
        """The step has returned: its span ends."""
        try:
            self.leave(step)
            attributes[names.ML_STEP_SELF_TIME] = max(end_time - step.since - step.nested, 0) * SECOND
            step.span.set_attributes(attributes)
            step.span.end(end_time)
        except Exception:  # noqa: BLE001 - a span processor of the user's may raise
            failed("steps: end")
        finally:
            self.count(step)

    def fail(self, step: Step, error: BaseException) -> None:
        """The step has raised: its span says so, and ends."""
        end_time = time_ns()
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        try:
            step.span.set_status(StatusCode.ERROR)  # no description: messages hold data
        except Exception:  # noqa: BLE001 - the user gets his exception
            failed("steps: fail")
        self.end(step, {names.ERROR_TYPE: name}, end_time)

    def finish(self, span: Span, end_time: int) -> None:
        """The model's call is over: what runs in its context from now on is no step of it."""
        if not self.active:
            return
        self.active = False
        if self.details is not None:
            self.details.end(span, end_time)
        if self.dropped:
            span.set_attribute(names.ML_STEPS_DROPPED, self.dropped)

    def leave(self, step: Step) -> None:
        """What runs from now on runs in what made the step's call."""
        if step.token is not None:
            token, step.token = step.token, None
            if step.outer is not None:
                self.current = step.outer
            detach(token)

    def count(self, step: Step) -> None:
        """The whole of it, our own work included, is not the outer step's own time."""
        if step.outer is not None:
            step.outer.nested += time_ns() - step.since

    def _name(self, outer: Step, target: object) -> str | None:
        """What this part is called within that step's object."""
        if outer.parts is None:
            outer.parts = self._parts(outer.target)
        name = _find(outer.parts, target)
        if name is not None or not self._by_class:
            return name
        if outer.looks < MAX_LOOKS:
            outer.looks += 1
            outer.parts = self._parts(outer.target)
            name = _find(outer.parts, target)
            if name is not None:
                return name
        # A clone: those of several parts of one class are taken to come in the parts' order.
        alike = [name for name, part in outer.parts if type(part) is type(target)]
        if not alike:
            return None
        if len(alike) > 1:
            alike = _given(alike, outer)
        used = [outer.counts.get(f"of {name}", 0) for name in alike]
        least = min(range(len(alike)), key=lambda at: (used[at], at))
        outer.counts[f"of {alike[least]}"] = used[least] + 1
        outer.parts.append((alike[least], target))  # its further calls have the same name
        return alike[least]


def _given(alike: list[str], outer: Step) -> list[str]:
    """Without what the fit itself has made (`final_estimator_`), and what that was made from: it is found as itself."""
    made = {name for name, _ in outer.parts or () if name.endswith("_") and read(outer.target, name) is not None}
    given = [name for name in alike if name not in made] or alike
    return [name for name in given if f"{name}_" not in made] or given


def _find(parts: list[Part], target: object) -> str | None:
    for name, part in parts:
        if part is target:
            return name
    return None


def shape_of(value: object) -> tuple[int, ...] | None:
    """Of an array, a frame or a list; None where it has none. Reads no element."""
    try:
        shape = getattr(value, "shape", None)
        if shape is not None:
            return tuple(int(size) for size in shape)
        return (len(value),) if isinstance(value, (list, tuple)) else None
    except Exception:  # noqa: BLE001 - the user's object
        return None
