"""joblib's workers know their caller: spans below it, one span per model call, tasks otherwise untouched."""

import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed
from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import mlspan
from mlspan.hooks.joblib import Carrier, carry
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]
BACKENDS = ["sequential", "threading", "multiprocessing", "loky"]


def _current_ids(_: int = 0) -> tuple[int, int, bool]:
    found = trace.get_current_span().get_span_context()
    return found.trace_id, found.span_id, is_instrumentation_enabled()


@pytest.mark.parametrize("backend", BACKENDS)
def test_context_arrives(hooked: Recorder, backend: str) -> None:
    """Tasks run below the span of the code that asked for them, in whatever thread or process."""
    with hooked.provider.get_tracer("test").start_as_current_span("caller") as span:
        found = Parallel(2, backend=backend)(delayed(_current_ids)(item) for item in range(4))
        own = span.get_span_context()
    assert found == [(own.trace_id, own.span_id, True)] * 4


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_suppression_arrives(hooked: Recorder, backend: str) -> None:
    """Suppressed code stays suppressed in its workers."""
    with suppress_instrumentation():
        assert Parallel(2, backend=backend)(delayed(_current_ids)() for _ in range(2)) == [(0, 0, False)] * 2


def test_bound_methods_of_models(hooked: Recorder, data: Data) -> None:
    """``delayed(model.predict)`` works with every backend; in threads its spans are below the caller's."""
    model = LogisticRegression().fit(*data)
    expected = model.predict(data[0]).tolist()
    for backend in BACKENDS:
        hooked.spans()
        with hooked.provider.get_tracer("test").start_as_current_span("caller") as span:
            parts = Parallel(2, backend=backend)(delayed(model.predict)(part) for part in np.array_split(data[0], 3))
        assert np.concatenate(parts).tolist() == expected
        if backend in {"sequential", "threading"}:
            predictions = [one for one in hooked.spans() if one.name.startswith("predict")]
            assert [one.parent for one in predictions] == [span.get_span_context()] * 3


@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "loky"])
def test_search_is_one_span(hooked: Recorder, data: Data, backend: str) -> None:
    """A search whose fits run in workers is one span."""
    with joblib.parallel_config(backend=backend):
        GridSearchCV(LogisticRegression(), {"C": [1.0, 2.0]}, cv=2, n_jobs=2).fit(*data)
    assert hooked.names() == ["fit GridSearchCV(LogisticRegression)"]


def test_workers_of_a_worker(hooked: Recorder, data: Data) -> None:
    """The forest within a task in a thread is one span, below the caller's."""
    model = RandomForestClassifier(4, n_jobs=2).fit(*data)
    hooked.spans()
    with hooked.provider.get_tracer("test").start_as_current_span("caller") as span:
        Parallel(2, backend="threading")(delayed(model.predict)(data[0]) for _ in range(3))
    spans = hooked.spans()
    assert [one.name for one in spans] == ["predict RandomForestClassifier"] * 3 + ["caller"]
    assert [one.parent for one in spans[:3]] == [span.get_span_context()] * 3


def test_nothing_to_carry(hooked: Recorder) -> None:
    """Outside of spans and model calls the tasks are the same object."""
    tasks = [delayed(abs)(-1)]
    assert carry(tasks, Context(), True) is tasks
    assert Parallel(2, backend="threading")(tasks) == [1]


def test_one_worker_is_the_caller(hooked: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one worker the tasks run in the caller's context anyway and pass untouched, unless they are taken later."""
    carried = []

    def note(tasks: Any, *_: object) -> Any:
        carried.append(tasks)
        return tasks

    monkeypatch.setattr("mlspan.hooks.joblib.carry", note)
    with hooked.provider.get_tracer("test").start_as_current_span("caller") as span:
        own = span.get_span_context()
        assert Parallel(1)(delayed(_current_ids)() for _ in range(2)) == [(own.trace_id, own.span_id, True)] * 2
        assert not carried
        Parallel(1, return_as="generator")(delayed(_current_ids)() for _ in range(2))
        Parallel(2, backend="threading")(delayed(_current_ids)() for _ in range(2))
    assert len(carried) == 2


def test_lazy_and_sized(hooked: Recorder) -> None:
    """Tasks are taken when joblib wants them, their number is known when it was, other items pass."""
    taken = []

    def tasks() -> Iterator[Any]:
        for item in range(3):
            taken.append(item)
            yield (abs, (-item,), {}) if item else "no task"

    with hooked.provider.get_tracer("test").start_as_current_span("caller"):
        context = get_current()
        lazy = iter(carry(tasks(), context, True))
        assert taken == []
        assert next(lazy) == "no task"
        assert taken == [0]
        function, args, kwargs = next(lazy)
        assert isinstance(function, Carrier)
        assert (function(*args, **kwargs), function.__name__) == (1, "abs")
        sized: Any = carry([delayed(abs)(-1)] * 5, context, True)
        assert (len(sized), len(list(sized)), len(list(sized))) == (5, 5, 5)
        assert not hasattr(carry(tasks(), context, True), "__len__")


def test_generators(hooked: Recorder) -> None:
    """Parallel(return_as="generator") gives a generator still, and carries the context of the call."""
    with hooked.provider.get_tracer("test").start_as_current_span("caller") as span:
        found = Parallel(2, backend="threading", return_as="generator")(delayed(_current_ids)() for _ in range(3))
    own = span.get_span_context()
    assert list(found) == [(own.trace_id, own.span_id, True)] * 3


def _fails() -> None:
    raise ValueError("task")


def test_exceptions(hooked: Recorder) -> None:
    """An exception of a task or of the tasks' own iterator passes without a frame of ours."""

    def broken() -> Iterator[Any]:
        yield delayed(abs)(-1)
        raise KeyError("iterator")

    with hooked.provider.get_tracer("test").start_as_current_span("caller"):
        for tasks, kind in ((iter([delayed(_fails)()]), ValueError), (broken(), KeyError)):
            with pytest.raises(kind) as caught:
                Parallel(1)(tasks)
            names = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
            assert not [name for name in names if "mlspan" in name]


def test_remote_backends_get_the_function_alone(hooked: Recorder) -> None:
    """What is sent to workers that may have no mlspan needs none."""
    with hooked.provider.get_tracer("test").start_as_current_span("caller"):
        (task,) = carry(iter([delayed(len)("four")]), get_current(), False)
        sent = pickle.dumps(task)
    assert b"mlspan" not in sent
    function, args, kwargs = pickle.loads(sent)
    assert function(*args, **kwargs) == 4


def test_name_goes_along(hooked: Recorder, data: Data) -> None:
    """What instrument_model was told about a model is known in the process that its method is sent to."""
    model = mlspan.instrument_model(LogisticRegression(), name="fraud-model", version="7")
    model.fit(*data)
    with hooked.provider.get_tracer("test").start_as_current_span("caller") as span:
        (task,) = carry(iter([delayed(model.predict)(data[0])]), get_current(), True)
        sent = pickle.dumps(task)
    hooked.spans()
    function, args, kwargs = pickle.loads(sent)
    function(*args, **kwargs)
    (prediction,) = hooked.spans()
    assert prediction.name == "predict fraud-model"
    assert prediction.parent is not None
    assert prediction.parent.span_id == span.get_span_context().span_id
    assert prediction.parent.is_remote


def test_put_back() -> None:
    """uninstrument() restores joblib.Parallel.__call__ itself."""
    before = vars(Parallel)["__call__"]
    mlspan.instrument(tracer_provider=Recorder().provider)
    assert vars(Parallel)["__call__"] is not before
    mlspan.uninstrument()
    assert vars(Parallel)["__call__"] is before


def test_joblib_alone_imported_later() -> None:
    """joblib imported after instrument() is hooked too."""
    program = (
        "import mlspan\nmlspan.instrument()\nimport joblib\n"
        "print(joblib.Parallel.__call__.__code__.co_filename.split('mlspan')[-1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "/hooks/joblib.py"
