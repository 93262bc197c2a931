"""Stage 4: one model call, as the hooks and the emitter tell each other of it.

A `Call` stands in the OpenTelemetry context while it runs, under `CALL`, so that what is called within it is no span of
its own. Memory: one object a call; nothing outlives it.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import opentelemetry.context
from opentelemetry.context import Context, create_key, get_current
from opentelemetry.trace import Span

if TYPE_CHECKING:
    from mlspan.captured import Input
    from mlspan.models import State
    from mlspan.steps import Steps

CALL: Final = create_key("mlspan-call")
"""Where the running `Call` stands in the OpenTelemetry context: the guard against nested spans."""
# The public function, or what it passes on to where that is a context variable: two frames less on each call.
_variable = getattr(getattr(opentelemetry.context, "_RUNTIME_CONTEXT", None), "_current_context", None)
current_context: Final[Callable[[], Context]] = _variable.get if isinstance(_variable, ContextVar) else get_current
"""What `opentelemetry.context.get_current` answers."""
_NO_TARGETS: Final[frozenset[int]] = frozenset()


class Method(Protocol):
    """What the emitter needs to know about a wrapped method."""

    @property
    def operation(self) -> str:
        """Its name."""

    @property
    def parameter(self) -> str:
        """The name of the parameter that takes the rows."""

    @property
    def is_selected(self) -> bool:
        """Whether its calls become spans."""

    @property
    def is_fit(self) -> bool:
        """Whether it changes the model."""

    @property
    def has_rows(self) -> bool:
        """Whether its span carries the captured rows."""


class Call:
    """One outermost model call; stands in the context while it runs.

    Attributes:
        active: whether it still runs; a context may outlive the call, in a thread that it started.
        is_quiet: whether nothing becomes of the calls within it but of its targets', while it runs.
        targets: `id` of the objects whose nested probabilities are this call's own.
        probabilities: what the last of those nested calls returned.
        state: of the model; None when there is no span to be ended.
        steps: what becomes of calls within it; None: nothing.
    """

    __slots__ = ("active", "captured", "is_quiet", "probabilities", "span", "state", "steps", "targets")
    is_answer: ClassVar[bool] = True
    """Whether the result is the model's answer."""

    def __init__(self, span: Span) -> None:
        self.active = True
        self.is_quiet = False
        self.targets = _NO_TARGETS
        self.probabilities: object = None
        self.span = span
        self.captured: Input | None = None
        self.state: State | None = None
        self.steps: Steps | None = None


class OtherCall(Call):
    """A call that asks for something else than the answer: margins, leaves, contributions. Only counted."""

    __slots__ = ()
    is_answer: ClassVar[bool] = False
