"""Stage 1, beside OTLP on the HTTP port: labels in, the report out.

``POST /v1/labels``, ``GET /v1/models``, ``GET /v1/models/{name}?version=&start=&end=``, ``GET /v1/incidents``.
``GET /v1/models?name=`` is the same as the third, also for names that no path can hold ("", ".", "..").
Answers are JSON. Only there when the configuration has a connector that understands them.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, cast

import orjson
from aiohttp import web

from mlspan_processor.labels import Label, LabelReceipt
from mlspan_processor.receive.http import JSON, HttpError, HttpReceiver
from mlspan_processor.receive.label_lines import (
    CSV_TYPES,
    JSON_LINES_TYPES,
    BadLine,
    LabelFormatError,
    LabelLine,
    read_labels,
)
from mlspan_processor.records import RetryableError
from mlspan_processor.telemetry import Telemetry

LABELS_PATH = "/v1/labels"
MODELS_PATH = "/v1/models"
INCIDENTS_PATH = "/v1/incidents"
_LABEL_TYPES = frozenset({JSON, *JSON_LINES_TYPES, *CSV_TYPES})
_MAX_REJECTED = 1_000
"""Bad lines that an answer lists; the others are only counted."""
_NANOSECONDS_FROM = 1e15

T = TypeVar("T")


class ModelApi(Protocol):
    """What a connector offers beyond chunks; see connector.py."""

    def submit_labels(self, labels: list[Label]) -> LabelReceipt:
        """Take labels; raise RetryableError when its input is full."""

    def status(self) -> dict[str, Any]:
        """The models it knows."""

    def incidents(self) -> dict[str, Any]:
        """Incidents that are open, and the last closed ones."""

    def report(self, model: str, version: str | None, start_ns: int | None, end_ns: int | None) -> dict[str, Any]:
        """One model's quality and drift; raise KeyError for an unknown model."""


def add_routes(receiver: HttpReceiver, connectors: Mapping[str, Any], telemetry: Telemetry) -> None:
    """Serve the first connector that has labels and reports."""
    api = next((one for one in connectors.values() if hasattr(one, "submit_labels")), None)
    if api is None:
        return
    handlers = _Handlers(receiver, cast(ModelApi, api), telemetry)
    receiver.add_route("POST", LABELS_PATH, handlers.labels)
    receiver.add_route("GET", MODELS_PATH, handlers.models)
    receiver.add_route("GET", MODELS_PATH + "/{name:.+}", handlers.model)
    receiver.add_route("GET", INCIDENTS_PATH, handlers.incidents)


class _Handlers:
    def __init__(self, receiver: HttpReceiver, api: ModelApi, telemetry: Telemetry) -> None:
        self._receiver = receiver
        self._api = api
        name = receiver.intake.receiver
        self._counters = {
            state: telemetry.counter("mlspan_receiver_labels", receiver=name, state=state)
            for state in ("accepted", "rejected")
        }

    async def labels(self, request: web.Request) -> web.Response:
        content_type = request.content_type
        if content_type not in _LABEL_TYPES:
            valid = ", ".join(sorted(_LABEL_TYPES))
            raise HttpError(415, f'Content-Type "{content_type}" is not supported; valid are {valid}')
        body = await self._receiver.read_body(request)
        return await self._receiver.in_thread(lambda: self._submit(body, content_type))

    def _submit(self, body: bytes, content_type: str) -> web.Response:
        try:
            good, bad = read_labels(body, content_type)
        except LabelFormatError as error:
            raise HttpError(400, str(error)) from None
        try:
            receipt = self._api.submit_labels([_label(line) for line in good]) if good else None
        except RetryableError as error:
            raise HttpError(503, str(error), error.retry_after_seconds or 1.0) from None
        # A receipt's positions are those of the list that was submitted: back to lines.
        rejected = list(bad)
        if receipt is not None:
            rejected += [BadLine(good[index].line, reason) for index, reason in receipt.rejected]
        accepted = len(good) + len(bad) - len(rejected)
        self._counters["accepted"].add(accepted)
        self._counters["rejected"].add(len(rejected))
        rejected.sort(key=lambda one: one.line)
        return _json(
            {
                "accepted": accepted,
                "waiting": receipt.waiting if receipt is not None else 0,
                "not_captured": receipt.not_captured if receipt is not None else 0,
                "durable": receipt.durable if receipt is not None else False,
                "rejected_count": len(rejected),
                "rejected": [{"line": one.line, "reason": one.reason} for one in rejected[:_MAX_REJECTED]],
            }
        )

    async def models(self, request: web.Request) -> web.Response:
        if "name" in request.query:
            query = dict(request.query)
            return await self._report(query.pop("name"), query)
        return _json(await self._asked(self._api.status))

    async def incidents(self, _: web.Request) -> web.Response:
        return _json(await self._asked(self._api.incidents))

    async def model(self, request: web.Request) -> web.Response:
        return await self._report(request.match_info["name"], request.query)

    async def _report(self, name: str, query: Mapping[str, str]) -> web.Response:
        unknown = set(query) - {"version", "start", "end"}
        if unknown:
            raise HttpError(400, f'unknown parameter "{min(unknown)}"; valid are version, start, end')
        start, end = (_moment(query, key) for key in ("start", "end"))
        if start is not None and end is not None and start >= end:
            raise HttpError(400, f'start "{query["start"]}" is not before end "{query["end"]}"')
        try:
            report = await self._asked(lambda: self._api.report(name, query.get("version"), start, end))
        except KeyError:
            which = f'version "{query["version"]}" of model "{name}"' if "version" in query else f'model "{name}"'
            raise HttpError(404, f"no {which} has been seen; {MODELS_PATH} lists those that were") from None
        return _json(report)

    async def _asked(self, work: Callable[[], T]) -> T:
        try:
            return await self._receiver.in_thread(work)
        except (TimeoutError, RetryableError) as error:
            raise HttpError(503, str(error), 1.0) from None


def _label(line: LabelLine) -> Label:
    return Label(prediction_id=line.prediction_id, label=line.label, model=line.model, timestamp_ns=line.timestamp_ns)


def _moment(query: Mapping[str, str], key: str) -> int | None:
    """Return a parameter as Unix nanoseconds: RFC 3339, Unix seconds, or nanoseconds."""
    text = query.get(key)
    if not text:
        return None
    try:
        moment = _nanoseconds(text)
    except (ValueError, OverflowError):
        raise HttpError(400, f'{key} "{text}" is neither RFC 3339 nor Unix seconds') from None
    if not 0 <= moment < 1 << 63:
        raise HttpError(400, f'{key} "{text}" lies before 1970 or after 2262')
    return moment


def _nanoseconds(text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        # A "+" of the offset arrives as a space when the client did not encode it.
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e9)
    return int(text) if number >= _NANOSECONDS_FROM and text.isdecimal() else int(number * 1e9)


def _json(document: Any) -> web.Response:
    return web.Response(body=orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), content_type=JSON)
