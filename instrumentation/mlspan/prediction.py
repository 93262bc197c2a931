"""Stage 4, ids: how a prediction is named, so that its true answer can be brought to it later.

``with prediction_context("order-17"): model.predict(row)`` names it by the user's own key; ``with prediction_context()
as context`` leaves the default name, trace id, span id and row, to be read from ``context.ids``. Lives in the
OpenTelemetry context, so it holds wherever that does: in this thread, in tasks, in instrumented threads.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, overload

from opentelemetry.context import Context, attach, create_key, detach, set_value
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanContext, TraceFlags, format_span_id, format_trace_id

from mlspan.guard import warn_once

if TYPE_CHECKING:
    from contextvars import Token

PREDICTION: Final = create_key("mlspan-prediction")


def default_id(span_context: SpanContext, row: int) -> str:
    """The id of a row that its caller did not name."""
    return f"{format_trace_id(span_context.trace_id)}-{format_span_id(span_context.span_id)}-{row}"


def span_of(prediction_id: str) -> SpanContext | None:
    """The span that a default id names; None for the user's own ids."""
    parts = prediction_id.split("-")
    if len(parts) != 3 or (len(parts[0]), len(parts[1])) != (32, 16) or not parts[2].isdecimal():
        return None
    try:
        found = SpanContext(int(parts[0], 16), int(parts[1], 16), True, TraceFlags(TraceFlags.SAMPLED))
    except ValueError:
        return None
    return found if found.is_valid else None


class _Numbered(Sequence[str]):
    """Ids of a call's rows, made when they are asked for."""

    __slots__ = ("_rows", "_stem")

    def __init__(self, stem: str, rows: int) -> None:
        self._stem = stem
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        numbers = range(self._rows)[row]
        if isinstance(numbers, int):
            return f"{self._stem}-{numbers}"
        return tuple(f"{self._stem}-{number}" for number in numbers)


class PredictionContext:
    """What `prediction_context` returns: a context manager, for ``with`` and ``async with``.

    Attributes:
        ids: one id per row of the last outermost prediction within; empty before it, and when it was not recorded
            (sampled out).
    """

    __slots__ = ("_given", "_last", "_parent", "_tokens")

    def __init__(self, prediction_id: object = None, parent: Mapping[str, Any] | None = None) -> None:
        self._given: str | tuple[str, ...] | None
        if prediction_id is None or isinstance(prediction_id, str):
            self._given = prediction_id
        elif isinstance(prediction_id, Iterable) and not isinstance(prediction_id, bytes):
            self._given = tuple(map(str, prediction_id))
        else:
            self._given = str(prediction_id)
        self._parent = parent
        self._last: Sequence[str] = ()
        self._tokens: list[Token[Context]] = []

    @property
    def ids(self) -> Sequence[str]:
        """One id per row of the last outermost prediction within, or nothing."""
        return self._last

    def __enter__(self) -> Self:
        context = None if self._parent is None else extract(self._parent)
        self._tokens.append(attach(set_value(PREDICTION, self, context)))
        return self

    def __exit__(self, *_: object) -> None:
        detach(self._tokens.pop())

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def clear(self) -> None:
        """For the emitter: the call was not recorded, so its rows have no ids."""
        self._last = ()

    def name_rows(self, rows: int, span_context: SpanContext) -> Sequence[str] | None:
        """For the emitter: note the call, and give the user's ids of its rows, or None when they have none."""
        given = self._given
        own: Sequence[str] | None = None
        if isinstance(given, tuple):
            if len(given) == rows:
                own = given
            else:
                warn_once(
                    "prediction_context: ids",
                    "prediction_context was given %d ids and the call has %d rows; its rows keep the default ids",
                    len(given),
                    rows,
                )
        elif given is not None:
            own = (given,) if rows == 1 else _Numbered(given, rows)
        if own is None:
            stem = f"{format_trace_id(span_context.trace_id)}-{format_span_id(span_context.span_id)}"
            self._last = _Numbered(stem, rows)
        else:
            self._last = own
        return own


def prediction_context(prediction_id: object = None, parent: Mapping[str, Any] | None = None) -> PredictionContext:
    """Name the predictions made within, and optionally say which trace they belong to.

    Args:
        prediction_id: the user's own key of the row to be predicted (anything but text is turned into it), or one per
            row; in a call of several rows one key becomes ``key-0``, ``key-1``, …. None: trace id, span id, row.
        parent: headers that came with the work (``traceparent`` …), where it came through a queue and the trace
            would otherwise begin anew; replaces the current context.
    """
    return PredictionContext(prediction_id, parent)
