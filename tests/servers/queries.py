"""Reading back what the servers have, and waiting until they have it. Standard library only.

A time is a `datetime` with a time zone or seconds since 1970. A server that refuses raises a `QueryError`
with its words; one that cannot be reached raises `OSError`. `wait_until` takes both for "not yet".
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from .spans import Span, from_otlp_json

T = TypeVar("T")
Time = datetime | float
TIMEOUT = 10.0
MANY = 10_000


class QueryError(RuntimeError):
    """A server answered a query with an error."""

    def __init__(self, url: str, status: int, body: str) -> None:
        super().__init__(f"{url} answered {status}: {body.strip()[:500]}")
        self.status = status


@dataclass(frozen=True)
class Sample:
    """One series of an instant query: its labels (`__name__` among them), its value and when it was taken."""

    labels: dict[str, str]
    value: float
    time: float


@dataclass(frozen=True)
class Exemplar:
    """One exemplar: the labels of its series, its own (`trace_id`, `span_id`), its value and time."""

    series: dict[str, str]
    labels: dict[str, str]
    value: float
    time: float


def wait_until(check: Callable[[], T], timeout: float, what: str, interval: float = 0.1) -> T:
    """Call `check` until it returns something true, and return that.

    An AssertionError, a QueryError, an OSError, or a KeyError or IndexError of an answer that is not whole
    yet counts as "not yet".

    Raises:
        TimeoutError: it never did in `timeout` seconds; the message has `what` and the last answer or error.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            last: object = (found := check())
            if found:
                return found
        except (AssertionError, QueryError, OSError, KeyError, IndexError) as error:
            last = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain for {what}; the last answer was {last!r:.500}")
        time.sleep(interval)


def jaeger_services(url: str) -> list[str]:
    """Return the names of the services that Jaeger has spans of, sorted."""
    return sorted(_get(f"{url}/api/v3/services").get("services", []))


def jaeger_traces(
    url: str, service: str, since: Time, attributes: Mapping[str, str] | None = None, limit: int = MANY
) -> list[list[Span]]:
    """Return the traces with a span of `service` that began at `since` or later, oldest first.

    Spans are in the order of their start. With `attributes`, only traces in which one span has all of them,
    as Jaeger's own search finds them (values as text). API v3 over HTTP cannot search by attribute, so that
    search goes through the API of Jaeger's web page.
    """
    begin = _moment(since)
    end = datetime.now(UTC) + timedelta(minutes=5)
    query = {
        "query.service_name": service,
        "query.start_time_min": _rfc3339(begin),
        "query.start_time_max": _rfc3339(end),
        "query.num_traces": str(limit),
    }
    traces = _traces(f"{url}/api/v3/traces?{urllib.parse.urlencode(query)}")
    if attributes is None:
        return traces
    search = {
        "service": service,
        "tags": json.dumps(dict(attributes)),
        "start": str(int(begin.timestamp() * 1e6)),
        "end": str(int(end.timestamp() * 1e6)),
        "limit": str(limit),
    }
    found = _get(f"{url}/api/traces?{urllib.parse.urlencode(search)}")["data"]
    wanted = {trace["traceID"].rjust(32, "0") for trace in found}
    return [trace for trace in traces if trace[0].trace_id in wanted]


def jaeger_trace(url: str, trace_id: str) -> list[Span]:
    """Return the spans of one trace by start time; none when Jaeger does not know it."""
    found = _traces(f"{url}/api/v3/traces/{trace_id}")
    return found[0] if found else []


def zipkin_traces(url: str, service: str, limit: int = 1_000) -> list[list[dict[str, Any]]]:
    """Return Zipkin's traces with a span of `service` as its API v2 has them: times in µs, all tags text."""
    query = urllib.parse.urlencode({"serviceName": service.lower(), "limit": limit})
    traces: list[list[dict[str, Any]]] = _get(f"{url}/api/v2/traces?{query}")
    return traces


def prometheus_query(url: str, expr: str) -> list[Sample]:
    """Return the value of `expr` now. A scalar is one sample without labels."""
    data = _get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}")["data"]
    match data["resultType"]:
        case "vector":
            return [Sample(row["metric"], float(row["value"][1]), row["value"][0]) for row in data["result"]]
        case "scalar":
            return [Sample({}, float(data["result"][1]), data["result"][0])]
        case other:
            raise ValueError(f"{expr!r} is a {other}; only a vector or a scalar can be read")


def prometheus_exemplars(url: str, expr: str, start: Time, end: Time) -> list[Exemplar]:
    """Return the exemplars of the series in `expr` whose time lies between `start` and `end`."""
    query = {"query": expr, "start": _rfc3339(_moment(start)), "end": _rfc3339(_moment(end))}
    data = _get(f"{url}/api/v1/query_exemplars?{urllib.parse.urlencode(query)}")["data"]
    return [
        Exemplar(row["seriesLabels"], found["labels"], float(found["value"]), float(found["timestamp"]))
        for row in data
        for found in row["exemplars"]
    ]


def _traces(url: str) -> list[list[Span]]:
    """Jaeger answers all traces as one list of `resourceSpans`, and "none" as a 404."""
    try:
        document = _get(url)
    except QueryError as error:
        if error.status == 404:
            return []
        raise
    traces: dict[str, list[Span]] = {}
    for span in sorted(from_otlp_json(document["result"]), key=_order):
        traces.setdefault(span.trace_id, []).append(span)
    return list(traces.values())


def _order(span: Span) -> tuple[int, int, bool]:
    """Earliest first, of those the longest, of those the root."""
    return span.start_ns, -span.end_ns, span.parent_span_id != ""


def _get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise QueryError(url, error.code, error.read().decode(errors="replace")) from error


def _moment(given: Time) -> datetime:
    return given if isinstance(given, datetime) else datetime.fromtimestamp(given, UTC)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


__all__: Sequence[str] = [
    "Exemplar",
    "QueryError",
    "Sample",
    "jaeger_services",
    "jaeger_trace",
    "jaeger_traces",
    "prometheus_exemplars",
    "prometheus_query",
    "wait_until",
    "zipkin_traces",
]
