"""What ends spans after their call: in order, together, bounded, in a thread that flush, fork and exit know."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import mlspan
from mlspan import deferred as deferred_module
from mlspan.deferred import Deferred, Job, deferred
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Answers, conv_net
from tests.torch.payloads import Seen, last


def test_no_thread_before_the_first_value() -> None:
    """Importing, instrumenting and calls with columns on the CPU start no thread."""
    program = (
        "import threading, torch, mlspan; mlspan.instrument()\n"
        "torch.nn.Linear(1, 1).eval()(torch.ones(1, 1)); print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def _job(done: list[Any], wait: Callable[[], object] | None = None, name: object = None, **more: Any) -> Job:
    return Job(lambda is_there: done.append((name, is_there)), wait, **more)


def test_order_and_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done in order; more than MAX_WAITING, or of more bytes than may wait, are left to the caller."""
    monkeypatch.setattr(deferred_module, "MAX_WAITING", 3)
    jobs, go = Deferred(), threading.Event()
    done: list[Any] = []
    assert [jobs.put(_job(done, go.wait, at)) for at in range(5)] == [True] * 3 + [False] * 2
    go.set()
    assert jobs.drain(10)
    assert done == [(0, True), (1, True), (2, True)]
    assert not jobs.put(_job(done, size=1 << 40))
    assert jobs.is_empty


def test_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of one kind that come soon after each other are prepared at once, and done one by one, in order."""
    monkeypatch.setattr(deferred_module, "GATHER_SECONDS", 30)
    jobs = Deferred()
    done: list[Any] = []
    batches: list[list[Any]] = []
    together: Any = lambda subjects: batches.append(list(subjects))  # noqa: E731 - typed
    for at in range(5):
        jobs.put(_job(done, None, at, subject=at, together=together))
    assert jobs.drain(10)  # a flush does not wait for more to come
    assert done == [(at, True) for at in range(5)]
    assert [at for batch in batches for at in batch] == list(range(5))


def test_a_failing_job() -> None:
    """A job that fails does not end the thread, and what cannot be waited for is done without values."""
    jobs = Deferred()
    done: list[Any] = []

    def fail(*_: object) -> None:
        raise ValueError

    jobs.put(Job(fail))
    jobs.put(_job(done, fail, 1))
    jobs.put(_job(done, None, 2, together=fail))
    assert jobs.drain(10)
    assert done == [(1, False), (2, True)]


def test_drain_gives_up() -> None:
    """Draining waits no longer than it may."""
    jobs, go = Deferred(), threading.Event()
    jobs.put(_job([], go.wait))
    start = time.monotonic()
    assert not jobs.drain(0.05)
    assert time.monotonic() - start < 5
    go.set()
    assert jobs.drain(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork() -> None:
    """A forked child has no jobs of its parent, and a thread of its own for its own."""
    jobs, go = Deferred(), threading.Event()
    jobs.put(_job([], go.wait))
    child = os.fork()
    if child == 0:
        done: list[Any] = []
        is_idle = jobs.drain(0)
        jobs.put(_job(done))
        os._exit(0 if is_idle and jobs.drain(10) and done == [(None, True)] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert jobs.drain(10)


@pytest.mark.parametrize("way", ["force_flush", "shutdown"])
def test_flush_and_shutdown_of_the_provider(recorder: Recorder, way: str) -> None:
    """The provider's own flush and shutdown wait for summaries; uninstrumenting gives them back."""
    mlspan.instrument(tracer_provider=recorder.provider)
    model = conv_net()
    for _ in range(5):
        model(torch.rand(1, 3, 32, 32))
    getattr(recorder.provider, way)()
    spans = recorder.exporter.get_finished_spans()
    assert len(spans) == 5
    assert all("ml.payload" in (span.attributes or {}) for span in spans)
    mlspan.uninstrument()
    assert not {"force_flush", "shutdown"} & set(vars(recorder.provider))


def test_summaries_of_several_calls(hooked: Recorder) -> None:
    """Calls that are summarised together have the features that each has alone."""
    model = Answers(torch.zeros(2, 1)).eval()
    images = [torch.rand(2, 3, 20, 20) + at for at in range(8)]
    alone = []
    for x in images:
        model(x)
        alone.append(last(hooked).cells)
    for x in images:
        model(x)
    assert deferred.drain(10)
    assert all(np.allclose(Seen(span).cells, one) for span, one in zip(hooked.spans(), alone, strict=True))


def test_exit_drains() -> None:
    """What waits at the process's end is still done, before the SDK shuts down."""
    program = (
        "import threading, time\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, BatchSpanProcessor\n"
        "provider = TracerProvider(); provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))\n"
        "from mlspan.deferred import Job, deferred\n"
        "span = provider.get_tracer('t').start_span('late')\n"
        "deferred.put(Job(lambda there: span.end(), lambda: time.sleep(0.3)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert '"name": "late"' in done.stdout
