"""ONNX Runtime's sessions: one span per run of the user's own, with what was fed and what the outputs mean."""

import gc
import inspect
import sys
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import mlspan
from mlspan.inputs.summaries import DIMENSIONS
from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE, PREDICTION_NUMBER, SCORE_NONE, SCORE_PROBABILITY
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.inputs import code
from tests.instrumentation.native_models import COLUMNS, ROWS, classifier, data, linear, one, onnx_model, session, value

Hook = Callable[..., Recorder]
X = data()[0]


def _answers(recorder: Recorder, model: onnxruntime.InferenceSession, rows: int = ROWS) -> tuple[Any, Any]:
    result = model.run(None, {"x": X[:rows]})
    return result, one(recorder)


def _identity(*inputs: Any) -> onnxruntime.InferenceSession:
    """A session that takes these inputs, and answers the first column of a matrix of its own."""
    nodes = [helper.make_node("Identity", [given.name], [f"out-{given.name}"]) for given in inputs]
    outputs = []
    for given in inputs:
        outputs.append(type(given)())
        outputs[-1].CopyFrom(given)
        outputs[-1].name = f"out-{given.name}"
    return session(onnx_model(nodes, list(inputs), outputs))


def test_span(hook: Hook) -> None:
    """A one-row run has exactly these attributes, and the scope says who the model is; the first call's span too."""
    recorder = hook(model_name="fraud-model", model_version="7")
    model = session(linear(3, "Softmax"))
    tracer = trace.get_tracer("test", tracer_provider=recorder.provider)
    for _ in range(2):
        with tracer.start_as_current_span("request") as request:
            answer = model.run(["y"], {"x": X[:1]})[0]
        span, outer = recorder.spans()
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert outer.start_time <= span.start_time <= span.end_time <= outer.end_time  # type: ignore[operator]
        attributes = dict(span.attributes or {})
        assert type(attributes.pop("ml.payload")) is bytes
        assert attributes == {
            "ml.operation.name": "predict",
            "ml.model.name": "fraud-model",
            "ml.model.version": "7",
            "ml.input.rows": 1,
            "ml.input.columns": 4,
            "ml.prediction.class": str(answer.argmax()),
            "ml.prediction.score": pytest.approx(answer.max()),
        }
        assert span.instrumentation_scope is not None
        assert dict(span.instrumentation_scope.attributes or {}) == {
            "ml.model.name": "fraud-model",
            "ml.model.version": "7",
            "ml.model.class": "onnxruntime.capi.onnxruntime_inference_collection.InferenceSession",
            "ml.model.task": "classification",
            "ml.framework.name": "onnxruntime",
            "ml.framework.version": onnxruntime.__version__,
            "ml.feature.names": ("x0", "x1", "x2", "x3"),
            "ml.feature.types": ("numeric",) * 4,
            "ml.prediction.classes": ("0", "1", "2"),
        }


def test_numbers(hooked: Recorder) -> None:
    """One number for each row is the answer of a regression."""
    result, seen = _answers(hooked, session(linear(1)))
    assert seen.scope["ml.model.task"] == "regression"
    assert seen.payload.prediction_kind == PREDICTION_NUMBER
    np.testing.assert_array_equal(seen.payload.predictions, result[0])


@pytest.mark.parametrize(("last", "log"), [("Softmax", False), ("LogSoftmax", True)])
def test_probabilities(hooked: Recorder, last: str, log: bool) -> None:
    """Rows that add up to 1 are probabilities; so are the exponentials of log-probabilities."""
    (result,), seen = _answers(hooked, session(linear(3, last)))
    assert seen.payload.score_kind == SCORE_PROBABILITY
    np.testing.assert_allclose(seen.payload.scores, np.exp(result) if log else result, rtol=1e-5)
    assert seen.payload.predictions[:, 0].tolist() == result.argmax(axis=1).tolist()


def test_what_is_not_known(hooked: Recorder) -> None:
    """Several numbers a row that could be anything are not captured, unless a name or the user says what they are."""
    model = session(linear(3))
    for _ in range(2):
        (result,), seen = _answers(hooked, model)
        assert (seen.payload.prediction_kind, seen.payload.score_kind) == (PREDICTION_NONE, SCORE_NONE)
        assert seen.scope["ml.model.task"] == "other"
        assert seen.cells.tolist() == X.tolist()
    raised = np.exp(result)
    softmax = raised / raised.sum(axis=1, keepdims=True)
    mlspan.instrument_model(model, name="state", output="logits", classes=["fine", "worn", "broken"])
    for told in (model, session(linear(3, name="logits"))):
        _, seen = _answers(hooked, told)
        np.testing.assert_allclose(seen.payload.scores, softmax, rtol=1e-4)
        names = ("fine", "worn", "broken") if told is model else ("0", "1", "2")
        assert seen.scope["ml.prediction.classes"] == names
    mlspan.instrument_model(model, output="values")
    _, seen = _answers(hooked, model)
    np.testing.assert_array_equal(seen.payload.predictions, result)


@pytest.mark.parametrize("labels", [["broken", "fine", "worn"], [3, 5, 9]])
def test_dictionaries(hooked: Recorder, labels: list[Any]) -> None:
    """Dictionaries of probabilities, as skl2onnx makes them, say what the classes are called."""
    result, seen = _answers(hooked, session(classifier(labels, zipmap=True)))
    names = tuple(map(str, labels))
    assert seen.scope["ml.prediction.classes"] == names
    assert [names[at] for at in seen.payload.predictions[:, 0]] == [str(label) for label in result[0].tolist()]
    np.testing.assert_allclose(seen.payload.scores, [list(row.values()) for row in result[1]], rtol=1e-6)
    told = ["worn", "fine", "broken"] if labels[0] == "broken" else ["a", "b", "c"]
    model = mlspan.instrument_model(session(classifier(labels, zipmap=True)), classes=told)
    _, other = _answers(hooked, model)
    np.testing.assert_array_equal(other.payload.predictions, seen.payload.predictions)
    assert other.scope["ml.prediction.classes"] == (names if labels[0] == "broken" else ("a", "b", "c"))


def test_labels_and_probabilities(hooked: Recorder) -> None:
    """A label beside a matrix of probabilities: whole numbers from 0 are the classes, others have to be told."""
    result, seen = _answers(hooked, session(classifier([0, 1, 2])))
    assert seen.scope["ml.prediction.classes"] == ("0", "1", "2")
    assert seen.payload.predictions[:, 0].tolist() == result[0].tolist()
    np.testing.assert_allclose(seen.payload.scores, result[1], rtol=1e-6)
    model = session(classifier(["fine", "worn", "broken"]))
    _, seen = _answers(hooked, model)
    assert seen.payload.prediction_kind == PREDICTION_NONE
    mlspan.instrument_model(model, classes=["fine", "worn", "broken"])
    result, seen = _answers(hooked, model, 1)
    assert seen.attributes["ml.prediction.class"] == result[0][0]
    assert seen.attributes["ml.prediction.score"] == pytest.approx(float(result[1].max()))


def test_labels_alone(hooked: Recorder) -> None:
    """A run that asks for the label alone has classes, where they are known, and no scores."""
    model = mlspan.instrument_model(session(classifier(["fine", "worn"])), classes=["fine", "worn"])
    for _ in range(2):
        (labels,) = model.run(["label"], {"x": X})
        seen = one(hooked)
        assert seen.payload is not None
        assert (seen.payload.prediction_kind, seen.payload.score_kind) == (PREDICTION_CLASS, SCORE_NONE)
        assert [("fine", "worn")[at] for at in seen.payload.predictions[:, 0]] == labels.tolist()
        assert seen.scope["ml.prediction.classes"] == ("fine", "worn")


def test_one_probability(hooked: Recorder) -> None:
    """One number between 0 and 1 is the probability of the second class, where classes are told."""
    model = mlspan.instrument_model(session(linear(1, "Sigmoid")), classes=["fine", "fraud"])
    (result,), seen = _answers(hooked, model)
    np.testing.assert_allclose(seen.payload.scores, np.hstack((1 - result, result)), atol=1e-6)
    assert seen.scope["ml.prediction.classes"] == ("fine", "fraud")


def test_whole_numbers(hooked: Recorder) -> None:
    """Whole numbers could be classes, clusters or counts: nothing is claimed of them until the user says."""
    model = _identity(value("x", TensorProto.INT64, None, 1))
    feed = {"x": np.arange(5).reshape(-1, 1)}
    model.run(None, feed)
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.payload.prediction_kind == PREDICTION_NONE
    mlspan.instrument_model(model, output="values")
    model.run(None, feed)
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.payload.predictions[:, 0].tolist() == [0, 1, 2, 3, 4]
    mlspan.instrument_model(model, output="labels", classes=list("abcde"))
    model.run(None, {"x": feed["x"][:1]})
    assert one(hooked).attributes["ml.prediction.class"] == "a"


def test_several_inputs(hooked: Recorder) -> None:
    """Inputs of one column each are called by their names; texts are categories, and never leave as texts."""
    model = _identity(
        value("age", TensorProto.FLOAT, None, 1),
        value("carrier", TensorProto.STRING, None, 1),
        value("more", TensorProto.FLOAT, None, 2),
        value("count", TensorProto.INT64, None),
    )
    feed = {
        "age": np.array([[30.0], [40.0]], np.float32),
        "carrier": np.array([["UA"], ["AA"]]),
        "more": np.array([[1, 2], [3, 4]], np.float32),
        "count": np.array([7, 8]),
    }
    model.run(None, feed)
    seen = one(hooked)
    assert seen.names == ("age", "carrier", "more.0", "more.1", "count")
    assert seen.scope["ml.feature.types"] == ("numeric", "categorical", "numeric", "numeric", "numeric")
    assert seen.payload is not None
    assert seen.payload.cells.view(np.uint32)[:, 1].tolist() == [code("UA"), code("AA")]
    assert seen.feature("more.1").tolist() == [2, 4]
    assert seen.feature("count").tolist() == [7, 8]
    assert b"UA" not in seen.attributes["ml.payload"]


def test_selected_columns(hook: Hook) -> None:
    """allow and deny hold for each column of several inputs, and rows are sampled."""
    recorder = hook(deny=["carrier", "more.0"], max_rows=50)
    model = _identity(value("carrier", TensorProto.STRING, None, 1), value("more", TensorProto.FLOAT, None, 3))
    more = np.random.default_rng(0).standard_normal((2_000, 3)).astype(np.float32)
    model.run(None, {"carrier": np.full((2_000, 1), "UA"), "more": more})
    seen = one(recorder)
    assert seen.names == ("more.1", "more.2")
    assert seen.payload is not None
    assert seen.payload.indices is not None
    assert (seen.payload.total_rows, len(seen.cells)) == (2_000, 50)
    np.testing.assert_array_equal(seen.cells, more[seen.payload.indices][:, 1:])


def test_images(hooked: Recorder) -> None:
    """Images become statistics of their channels and a projection, as those of torch modules."""
    model = _identity(value("pixels", TensorProto.FLOAT, None, 3, 8, 8))
    pixels = np.random.default_rng(0).random((5, 3, 8, 8)).astype(np.float32)
    model.run(None, {"pixels": pixels})
    seen = one(hooked)
    assert len(seen.names) == 4 * 3 + 1 + DIMENSIONS
    np.testing.assert_allclose(seen.feature("channel1.mean"), pixels[:, 1].mean(axis=(1, 2)), rtol=1e-5)


def test_tokens(hooked: Recorder) -> None:
    """Token ids become their number and a projection; the mask says what is padding."""
    shape = (TensorProto.INT64, None, 6)
    model = _identity(value("input_ids", *shape), value("attention_mask", *shape))
    ids = np.arange(12).reshape(2, 6)
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    model.run(None, {"input_ids": ids, "attention_mask": mask})
    seen = one(hooked)
    assert seen.names[:2] == ("length", "pad_share")
    assert seen.feature("length").tolist() == [6, 3]
    assert seen.feature("pad_share").tolist() == [0, 0.5]


def test_wide_input(hooked: Recorder) -> None:
    """A wide matrix is a vector, unless its columns have names."""
    wide = np.random.default_rng(0).random((4, 300)).astype(np.float32)
    model = _identity(value("x", TensorProto.FLOAT, None, 300))
    model.run(None, {"x": wide})
    assert "norm" in one(hooked).names
    mlspan.instrument_model(model, feature_names=[f"c{at}" for at in range(300)])
    model.run(None, {"x": wide})
    assert one(hooked).names[:2] == ("c0", "c1")


def test_lists(hooked: Recorder) -> None:
    """Lists are read as the arrays that they become."""
    model = session(linear(1))
    model.run(None, {"x": X[:3].tolist()})
    np.testing.assert_allclose(one(hooked).cells, X[:3])


def test_bindings(hooked: Recorder) -> None:
    """Runs whose values may be on a device are counted, and nothing is read."""
    model = session(linear(3, "Softmax"))
    binding = model.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_output("y")
    model.run_with_iobinding(binding)
    model.run_with_ort_values(None, {"x": onnxruntime.OrtValue.ortvalue_from_numpy(X)})
    spans = hooked.spans()
    assert [span.name for span in spans] == ["predict InferenceSession"] * 2
    for span in spans:
        attributes = dict(span.attributes or {})
        assert attributes.pop("ml.model.version").startswith("fp-")  # type: ignore[union-attr]
        assert attributes == {
            "ml.operation.name": "predict",
            "ml.model.name": "InferenceSession",
            "ml.input.rows": ROWS,
            "ml.input.columns": COLUMNS,
        }


def test_version(hooked: Recorder, tmp_path: Path) -> None:
    """The version follows the model's bytes, from a file or not; other weights are another one."""
    model = linear(3)
    file = tmp_path / "model.onnx"
    file.write_bytes(model)
    first, second, other = (
        _answers(hooked, session(source))[1].attributes["ml.model.version"]
        for source in (model, file, linear(3, "Softmax"))
    )
    assert first == second
    assert first != other
    assert first.startswith("fp-")


def test_large_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large model a bounded number of blocks is read, spread over all of it."""
    from mlspan.hooks import onnxruntime as hook

    read: list[int] = []

    def block(start: int) -> bytes:
        read.append(start)
        return b"x"

    size = 1_000 << 20
    hook._spread(size, block)
    assert len(read) == 64
    assert read[0] == 0
    assert read[-1] > size * 0.97


def test_sampling_and_ids(hook: Hook) -> None:
    """A sampler's no is heeded, also at the first call; prediction_context names the rows."""
    model = session(linear(3, "Softmax"))
    recorder = hook(sampler=ALWAYS_OFF)
    with mlspan.prediction_context() as context:
        for _ in range(3):
            model.run(None, {"x": X})
    assert recorder.names() == []
    assert list(context.ids) == []
    mlspan.uninstrument()
    recorder = hook()
    for _ in range(2):
        with mlspan.prediction_context("order-17") as context:
            _, seen = _answers(recorder, model, 1)
        assert seen.attributes["ml.prediction.id"] == "order-17"
        assert list(context.ids) == ["order-17"]


def test_without_content(hook: Hook) -> None:
    """Without content only counts leave the process."""
    recorder = hook(capture_content=False)
    _, seen = _answers(recorder, session(classifier(["a", "b"], zipmap=True)))
    assert seen.payload is None
    assert "ml.prediction.classes" not in seen.scope
    assert "ml.feature.names" not in seen.scope
    assert (seen.attributes["ml.input.rows"], seen.attributes["ml.input.columns"]) == (ROWS, COLUMNS)


def test_nothing_is_changed(recorder: Recorder) -> None:
    """Results, exceptions with their tracebacks and signatures are those of before; all is put back."""
    owner = onnxruntime.InferenceSession.__mro__[1]
    methods = ("run", "run_with_iobinding", "run_with_ort_values")
    before = {name: vars(owner)[name] for name in methods}
    model = session(classifier(["a", "b"], zipmap=True))

    def look() -> tuple[object, ...]:
        frames = []
        for wrong in ({"z": X}, {"x": X[:, :2]}, {"x": None}, None):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the library raises
                model.run(None, wrong)
            frames.append((type(caught.value), [frame.name for frame in traceback.extract_tb(caught.tb)]))
        result = model.run(None, {"x": X})
        return frames, result[0].tolist(), result[1], str(inspect.signature(model.run))

    expected = look()
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        assert look() == expected
        failed = [span for span in recorder.spans() if span.status.status_code is StatusCode.ERROR]
        assert len(failed) == 4
    finally:
        mlspan.uninstrument()
    assert {name: vars(owner)[name] for name in methods} == before


def test_models_are_not_kept(hooked: Recorder) -> None:
    """A session that the program drops is gone."""
    model = session(linear(3, "Softmax"))
    model.run(None, {"x": X})
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_nothing_is_imported() -> None:
    """The hooks are there without the libraries."""
    import subprocess

    program = (
        "import sys, mlspan; mlspan.instrument(); from mlspan.hooks.onnxruntime import OnnxRuntimeInstrumentor\n"
        "assert OnnxRuntimeInstrumentor().is_instrumented_by_opentelemetry\n"
        "print(*{'onnxruntime', 'onnx', 'xgboost', 'lightgbm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
