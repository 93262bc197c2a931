"""The spans of real servers and workers arrive, below the right parent, when their processes end."""

import concurrent.futures
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from sklearn.linear_model import LogisticRegression

import mlspan
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.programs import ROOT, await_port, environment, free_port, get, run, server
from tests.otlp_sink import OtlpSink, ReceivedSpan

WORKERS = ROOT / "tests/instrumentation/apps/workers.py"
EAGER = ROOT / "tests/instrumentation/apps/eager.py"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork(recorder: Recorder, data: tuple[Any, Any]) -> None:
    """A child begins with free locks, answers for its own spans only, and predicts as its parent does."""
    mlspan.instrument(tracer_provider=recorder.provider)
    running = mlspan.runtime.current()
    assert running is not None
    model = LogisticRegression().fit(*data)
    expected = model.predict(data[0]).tolist()
    emitter = running.emitter
    try:
        with emitter.models._lock:
            child = os.fork()
            if child == 0:
                free = emitter.models._lock.acquire(timeout=5)
                emitter.models._lock.release()
                same = not emitter.has_ended and model.predict(data[0]).tolist() == expected
                os._exit(0 if free and same and emitter.has_ended else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert emitter.has_ended
    finally:
        mlspan.uninstrument()


def _wait_without_hearing(model: LogisticRegression, x: Any) -> None:
    """Wait for ever, with a SIGTERM that another thread was given: the main one does not wake up for it."""
    model.predict(x)

    def tell() -> None:
        time.sleep(0.5)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    os.read(os.pipe()[0], 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_waits_ends_at_sigterm(recorder: Recorder, data: tuple[Any, Any]) -> None:
    """A signal that the main thread does not hear of, since it begins to wait, ends the process all the same."""
    mlspan.instrument(tracer_provider=recorder.provider)
    model = LogisticRegression().fit(*data)
    child = multiprocessing.get_context("fork").Process(target=_wait_without_hearing, args=(model, data[0]))
    try:
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGTERM
    finally:
        child.kill()
        mlspan.uninstrument()


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


@pytest.mark.parametrize(("worker", "preload"), [("sync", True), ("gthread", False)])
def test_gunicorn(sink: OtlpSink, tmp_path: Path, worker: str, preload: bool) -> None:
    """Predictions of prefork workers arrive below their requests, whether the model came before or after the fork."""
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
    "ways",
    [
        ["joblib:threading", "joblib:multiprocessing", "joblib:loky", "pool:fork", "executor:fork", "process:fork"],
        ["pool:spawn", "executor:spawn", "process:spawn"],
    ],
    ids=["fork", "spawn"],
)
def test_workers(sink: OtlpSink, ways: list[str]) -> None:
    """Predictions made in worker processes and threads arrive below the span of their caller."""
    expected = {way: 2 if way.startswith("process") else 4 for way in ways}
    run(sink, [sys.executable, WORKERS, *ways])
    sink.wait(lambda spans: sum(span.name.startswith("predict") for span in spans) >= sum(expected.values()))
    callers = {(span.trace_id, span.span_id): span.name for span in sink.named("caller")}
    found = Counter(callers[span.trace_id, span.parent_id] for span in sink.named("predict"))
    assert found == {f"caller {way}": count for way, count in expected.items()}


@pytest.mark.parametrize(("method", "expected"), [("spawn", 6), ("forkserver", 6)])
def test_workers_that_predict_while_they_are_imported(sink: OtlpSink, method: str, expected: int) -> None:
    """A fresh process whose first span ends before its work begins is flushed at its end like any other."""
    run(sink, [sys.executable, EAGER, method])
    sink.wait(lambda spans: sum(span.name.startswith("predict") for span in spans) >= expected)
    assert len(sink.named("predict")) == expected


_CELLS = [
    """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
import mlspan
mlspan.instrument(model_name="notebook-model")
""",
    """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV
class Mine(ClassifierMixin, BaseEstimator):
    def __init__(self, shift=0): self.shift = shift
    def fit(self, X, y): self.classes_ = np.unique(y); return self
    def predict(self, X): return (X[:, 0] > self.shift).astype(int)
X = np.random.default_rng(0).standard_normal((40, 2)); y = (X[:, 0] > 0).astype(int)
""",
    """
with trace.get_tracer("cell").start_as_current_span("cell"):
    search = GridSearchCV(Mine(), {"shift": [0, 1]}, n_jobs=2, cv=2).fit(X, y)
    answer = search.predict(X[:1])
""",
]


def test_notebook(sink: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook that calls instrument() has its spans, one per outermost call, also of a class defined in a cell."""
    for name, value in environment(sink).items():
        monkeypatch.setenv(name, value)
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in _CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    spans = sink.wait(lambda spans: len(spans) >= 3)
    (cell,) = sink.named("cell")
    models = {span.name: span for span in spans if span.scope == "mlspan"}
    assert set(models) == {"fit notebook-model", "predict notebook-model"}
    assert {span.parent_id for span in models.values()} == {cell.span_id}
