"""The spans of real servers and workers arrive, below the right parent, when their processes end."""

import concurrent.futures
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.instrumentation.programs import ROOT, await_port, environment, free_port, get, run, server
from tests.otlp_sink import OtlpSink, ReceivedSpan

WORKERS = ROOT / "tests/instrumentation/apps/workers.py"


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """A receiver."""
    with OtlpSink() as receiver:
        yield receiver


def _new_parent() -> tuple[str, dict[str, str]]:
    trace_id = uuid.uuid4().hex
    return trace_id, {"traceparent": f"00-{trace_id}-{uuid.uuid4().hex[:16]}-01"}


def _by_id(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    return {span.span_id: span for span in spans}


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn(sink: OtlpSink, tmp_path: Path, worker: str, preload: bool) -> None:
    """Every prediction of prefork workers arrives below its request, whether the model came before or after the fork."""
    port, log = free_port(), tmp_path / "log"
    command = ["gunicorn", "--workers=2", f"--worker-class={worker}", f"--bind=127.0.0.1:{port}"]
    if worker == "gthread":
        command.append("--threads=4")
    if preload:
        command.append("--preload")
    parents = dict(_new_parent() for _ in range(12))
    with server(sink, [*command, "tests.instrumentation.apps.wsgi:app"], log) as process:
        await_port(process, port, log)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda headers: get(port, "/3", headers), parents.values()))
    spans = sink.wait(lambda spans: len([span for span in spans if span.name.startswith("predict")]) >= 12)
    known = _by_id(spans)
    predictions = [span for span in spans if span.name == "predict LogisticRegression"]
    assert len(predictions) == 12
    assert {span.trace_id for span in predictions} == set(parents)
    assert {known[span.parent_id].name for span in predictions} == {"request"}


def test_uvicorn(sink: OtlpSink, tmp_path: Path) -> None:
    """Predictions on the loop and in threads arrive below their requests' spans, from both workers."""
    port, log = free_port(), tmp_path / "log"
    command = ["uvicorn", "--workers=2", f"--port={port}", "tests.instrumentation.apps.asgi:app"]
    parents = [_new_parent() for _ in range(24)]
    paths = ["/thread/3", "/loop/4"] * 12
    with server(sink, command, log) as process:
        await_port(process, port, log)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path, parent: json.loads(get(port, path, parent[1])), paths, parents))
    spans = sink.wait(lambda spans: len([span for span in spans if span.name.startswith("predict")]) >= 36)
    known = _by_id(spans)
    predictions = [span for span in spans if span.name == "predict LogisticRegression"]
    expected = {parent[0]: (path, 1 if "thread" in path else 2) for path, parent in zip(paths, parents, strict=True)}
    assert len(predictions) == 36
    for trace_id, (path, count) in expected.items():
        own = [span for span in predictions if span.trace_id == trace_id]
        assert len(own) == count
        for span in own:
            assert known[span.parent_id].name == f"GET {path[: path.index('/', 1)]}/{{row}}"


def test_celery(sink: OtlpSink, tmp_path: Path) -> None:
    """Predictions of prefork workers arrive below the span of the code that asked for them."""
    folder = tmp_path / "broker"
    folder.mkdir()
    more = {"BROKER_FOLDER": str(folder)}
    trace_id, headers = _new_parent()
    log = tmp_path / "log"
    command = ["celery", "-A", "tests.instrumentation.apps.tasks", "worker", "--concurrency=2", "--loglevel=INFO"]
    ask = (
        "import sys, json\n"
        "from tests.instrumentation.apps.tasks import score\n"
        "headers = json.loads(sys.argv[1])\n"
        "print([answer.get(timeout=90) for answer in [score.delay(row, headers) for row in range(6)]])\n"
    )
    with server(sink, command, log, **more):
        run(sink, [sys.executable, "-c", ask, json.dumps(headers)], instrumented=False, **more)
    sink.wait(lambda spans: len([span for span in spans if span.name.startswith("predict")]) >= 6)
    predictions = sink.named("predict")
    assert len(predictions) == 6
    assert {(span.trace_id, span.parent_id) for span in predictions} == {(trace_id, headers["traceparent"][36:52])}


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("pool", "fork"),
        ("pool", "spawn"),
        ("executor", "fork"),
        ("executor", "spawn"),
        ("process", "fork"),
        ("process", "spawn"),
        ("joblib", "loky"),
        ("joblib", "threading"),
        ("joblib", "multiprocessing"),
    ],
)
def test_workers(sink: OtlpSink, way: str, kind: str) -> None:
    """Predictions made in worker processes and threads arrive below the span of their caller."""
    run(sink, [sys.executable, WORKERS, way, kind])
    sink.wait(lambda spans: len([span for span in spans if span.name.startswith("predict")]) >= 4)
    (caller,) = sink.named("caller")
    predictions = sink.named("predict")
    assert len(predictions) == 4
    assert {(span.trace_id, span.parent_id) for span in predictions} == {(caller.trace_id, caller.span_id)}
