"""XGBoost's boosters: one span per prediction of the user's own, with rows and the answer that the objective names."""

import copy
import gc
import inspect
import pickle
import sys
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xgboost
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import mlspan
from mlspan.payload import PREDICTION_CLASS, PREDICTION_NUMBER, SCORE_PROBABILITY
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.native_models import ROWS, data, one, xgb
from tests.instrumentation.programs import run
from tests.otlp_sink import OtlpSink

Hook = Callable[..., Recorder]


def _matrix(rows: int = ROWS) -> xgboost.DMatrix:
    return xgboost.DMatrix(data()[0][:rows])


def test_span(hook: Hook) -> None:
    """A one-row prediction has exactly these attributes, and the scope says who the model is."""
    booster = xgb()
    recorder = hook(model_name="fraud-model", model_version="7")
    answer = booster.predict(_matrix(1))
    seen = one(recorder)
    payload = seen.attributes.pop("ml.payload")
    assert type(payload) is bytes
    assert seen.attributes == {
        "ml.operation.name": "predict",
        "ml.model.name": "fraud-model",
        "ml.model.version": "7",
        "ml.input.rows": 1,
        "ml.input.columns": 4,
        "ml.prediction.class": str(int(answer[0] > 0.5)),
        "ml.prediction.score": pytest.approx(max(answer[0], 1 - answer[0])),
    }
    assert seen.scope == {
        "ml.model.name": "fraud-model",
        "ml.model.version": "7",
        "ml.model.class": "xgboost.core.Booster",
        "ml.model.task": "classification",
        "ml.framework.name": "xgboost",
        "ml.framework.version": xgboost.__version__,
        "ml.feature.names": ("x0", "x1", "x2", "x3"),
        "ml.feature.types": ("numeric",) * 4,
        "ml.prediction.classes": ("0", "1"),
    }
    span = seen.span
    assert (span.name, span.kind, span.status.status_code) == (
        "predict fraud-model",
        SpanKind.INTERNAL,
        StatusCode.UNSET,
    )
    assert seen.cells[0].tolist() == data()[0][0].tolist()


def test_probabilities(hooked: Recorder) -> None:
    """Probabilities of two classes and of several are those that the call answered, by either method."""
    for booster, width in ((xgb(), 2), (xgb("multi:softprob", 3), 3)):
        for method, X in (("predict", _matrix()), ("inplace_predict", data()[0])):
            answer = getattr(booster, method)(X)
            payload = one(hooked).payload
            assert payload is not None
            assert (payload.prediction_kind, payload.score_kind) == (PREDICTION_CLASS, SCORE_PROBABILITY)
            both = answer if width == 3 else np.column_stack((1 - answer, answer))
            np.testing.assert_allclose(payload.scores, both, atol=1e-6)
            assert payload.predictions[:, 0].tolist() == both.argmax(axis=1).tolist()


def test_labels(hooked: Recorder) -> None:
    """Objectives that answer classes have classes, and no scores."""
    for booster, names in ((xgb("multi:softmax", 3), ("0", "1", "2")), (xgb("binary:hinge"), ("0", "1"))):
        answer = booster.predict(_matrix())
        seen = one(hooked)
        assert seen.payload is not None
        assert seen.scope["ml.prediction.classes"] == names
        assert seen.payload.prediction_kind == PREDICTION_CLASS
        assert seen.payload.predictions[:, 0].tolist() == answer.astype(int).tolist()
        assert seen.payload.scores.shape[1] == 0


def test_logits(hooked: Recorder) -> None:
    """binary:logitraw answers logits, whose sigmoid is the probability."""
    answer = xgb("binary:logitraw").predict(_matrix())
    payload = one(hooked).payload
    assert payload is not None
    np.testing.assert_allclose(payload.scores[:, 1], 1 / (1 + np.exp(-answer)), rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "task"),
    [
        ("reg:squarederror", "regression"),
        ("reg:logistic", "regression"),
        ("count:poisson", "regression"),
        ("rank:pairwise", "other"),
    ],
)
def test_numbers(hooked: Recorder, objective: str, task: str) -> None:
    """Other objectives answer numbers; one row has its number as an attribute."""
    answer = xgb(objective).predict(_matrix(1))
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.scope["ml.model.task"] == task
    assert "ml.prediction.classes" not in seen.scope
    assert seen.payload.prediction_kind == PREDICTION_NUMBER
    assert seen.attributes["ml.prediction.value"] == pytest.approx(float(answer[0]))


def test_several_targets(hooked: Recorder) -> None:
    """A booster of several quantiles answers several numbers a row."""
    answer = xgb("reg:quantileerror", quantile_alpha=[0.1, 0.9]).predict(_matrix())
    seen = one(hooked)
    assert seen.payload is not None
    assert seen.scope["ml.model.task"] == "regression"
    np.testing.assert_array_equal(seen.payload.predictions, answer)


@pytest.mark.parametrize(
    "flags", ["output_margin", "pred_leaf", "pred_contribs", "pred_interactions", "approx_contribs", "margin"]
)
def test_what_is_no_answer(hooked: Recorder, flags: str) -> None:
    """Margins, leaves and contributions are counted, and nothing is claimed of them."""
    booster = xgb()
    if flags == "margin":
        booster.inplace_predict(data()[0], predict_type="margin")
    elif flags == "approx_contribs":
        booster.predict(_matrix(), pred_contribs=True, approx_contribs=True)
    else:
        booster.predict(_matrix(), **{flags: True})
    attributes = one(hooked).attributes
    assert set(attributes) == {
        "ml.operation.name",
        "ml.model.name",
        "ml.model.version",
        "ml.input.rows",
        "ml.input.columns",
    }
    assert (attributes["ml.input.rows"], attributes["ml.input.columns"]) == (ROWS, 4)


def test_wrappers(hooked: Recorder) -> None:
    """What the scikit-learn wrappers ask of their booster is part of their own span."""
    X, y = data()
    model = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, y, eval_set=[(X, y)], verbose=False)
    model.predict_proba(X)
    model.predict(X)
    model.set_params(booster="gbtree", base_score=0.4).predict_proba(X)
    assert hooked.names() == [
        "fit XGBClassifier",
        "predict_proba XGBClassifier",
        "predict XGBClassifier",
        "predict_proba XGBClassifier",
    ]
    model.get_booster().inplace_predict(X)
    assert hooked.names() == ["predict Booster"]


def test_training(hooked: Recorder) -> None:
    """Training makes no spans, with objectives and metrics of the user's own neither."""
    X, y = data()
    matrix = xgboost.DMatrix(X, label=y)

    def squared(answer: np.ndarray, about: xgboost.DMatrix) -> tuple[np.ndarray, np.ndarray]:
        return answer - about.get_label(), np.ones(len(answer))

    def error(answer: np.ndarray, about: xgboost.DMatrix) -> tuple[str, float]:
        return "mine", float(np.abs(answer - about.get_label()).mean())

    settings = {"nthread": 1, "max_depth": 2, "disable_default_eval_metric": 1}
    booster = xgboost.train(
        settings, matrix, 3, obj=squared, custom_metric=error, evals=[(matrix, "train")], verbose_eval=False
    )
    xgboost.cv({"nthread": 1}, matrix, 2, nfold=2)
    booster.predict(matrix, training=True)
    assert hooked.names() == []


def test_version(hooked: Recorder) -> None:
    """The version is another one after more rounds, and the same for a copy."""
    X, y = data()
    matrix = xgboost.DMatrix(X, label=y)
    booster = xgb()
    versions = []
    for _ in range(2):
        booster.predict(matrix)
        copy.deepcopy(booster).predict(matrix)
        versions.append([span.attributes["ml.model.version"] for span in hooked.spans()])  # type: ignore[index]
        booster.update(matrix, 4)
    assert versions[0][0] == versions[0][1]
    assert versions[1][0] == versions[1][1]
    assert versions[0] != versions[1]


def test_told(hooked: Recorder) -> None:
    """instrument_model says name, version and classes, and what the outputs are where the objective does not know."""
    booster = mlspan.instrument_model(xgb(), name="fraud", version="3", classes=["fine", "fraud"])
    answer = booster.predict(_matrix(1))
    seen = one(hooked)
    assert seen.span.name == "predict fraud"
    assert seen.attributes["ml.model.version"] == "3"
    assert seen.attributes["ml.prediction.class"] == ("fraud" if answer[0] > 0.5 else "fine")
    other = mlspan.instrument_model(xgb("reg:squarederror"), output="logits")
    answer = other.predict(_matrix())
    seen = one(hooked)
    assert seen.payload is not None
    np.testing.assert_allclose(seen.payload.scores[:, 1], 1 / (1 + np.exp(-answer)), rtol=1e-5)
    other = mlspan.instrument_model(xgb(), task="regression")
    other.predict(_matrix(1))
    assert "ml.prediction.value" in one(hooked).attributes


def test_told_before(recorder: Recorder) -> None:
    """What instrument_model says before instrument() holds after it."""
    try:
        booster = mlspan.instrument_model(xgb(), name="fraud")
        mlspan.instrument(tracer_provider=recorder.provider)
        booster.predict(_matrix())
        seen = one(recorder)
        assert seen.span.name == "predict fraud"
        assert seen.payload is not None
        assert seen.payload.score_kind == SCORE_PROBABILITY
    finally:
        mlspan.uninstrument()
    assert "mlspan" not in str(inspect.unwrap(xgboost.Booster.predict).__code__)


def test_ids(hooked: Recorder) -> None:
    """prediction_context names the rows."""
    booster = xgb()
    with mlspan.prediction_context(["a", "b"]) as context:
        booster.predict(_matrix(2))
    seen = one(hooked)
    assert seen.payload is not None
    assert list(seen.payload.ids or ()) == ["a", "b"]
    assert list(context.ids) == ["a", "b"]


def test_parent_and_sampling(hook: Hook) -> None:
    """The span is below the current one, which a call within sees as current; a sampler's no is heeded."""
    recorder = hook()
    booster = xgb()
    tracer = trace.get_tracer("test", tracer_provider=recorder.provider)
    with tracer.start_as_current_span("request") as request:
        booster.predict(_matrix())
    span, _ = recorder.spans()
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    mlspan.uninstrument()
    recorder = hook(sampler=ALWAYS_OFF)
    with mlspan.prediction_context() as context:
        for _ in range(3):
            booster.predict(_matrix())
    assert recorder.names() == []
    assert list(context.ids) == []


def test_settings(hook: Hook) -> None:
    """Without content only counts leave the process; without the operation nothing does."""
    booster = xgb()
    recorder = hook(capture_content=False)
    booster.predict(_matrix(1))
    seen = one(recorder)
    assert seen.payload is None
    assert "ml.prediction.class" not in seen.attributes
    assert "ml.prediction.classes" not in seen.scope
    assert seen.attributes["ml.input.rows"] == 1
    mlspan.uninstrument()
    recorder = hook(operations=["fit"])
    booster.predict(_matrix())
    assert recorder.names() == []


def test_nothing_is_changed(recorder: Recorder) -> None:
    """Results, exceptions with their tracebacks, signatures and pickles are those of before; all is put back."""
    methods = ("predict", "inplace_predict", "update", "boost", "eval_set", "load_model", "load_config", "set_param")
    before = {name: vars(xgboost.Booster)[name] for name in methods}
    signatures = {name: str(inspect.signature(method)) for name, method in before.items()}
    booster, matrix, wrong = xgb(), _matrix(), xgboost.DMatrix(np.zeros((2, 9)))

    def look() -> tuple[object, ...]:
        with pytest.raises(xgboost.core.XGBoostError, match="column") as caught:
            booster.predict(wrong)
        frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
        pickled = pickle.loads(pickle.dumps(booster)).predict(matrix).tobytes()
        bound = pickle.loads(pickle.dumps(booster.predict))(matrix).tobytes()
        # Without the time of day before it and the addresses behind it.
        said = str(caught.value).partition("] ")[2].partition("\n")[0]
        return booster.predict(matrix).tobytes(), said, frames, pickled, bound

    expected = look()
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        assert look() == expected
        failed = next(span for span in recorder.spans() if span.status.status_code is StatusCode.ERROR)
        assert dict(failed.attributes or {})["error.type"] == f"{xgboost.core.XGBoostError.__module__}.XGBoostError"
        assert {name: str(inspect.signature(vars(xgboost.Booster)[name])) for name in methods} == signatures
    finally:
        mlspan.uninstrument()
    assert {name: vars(xgboost.Booster)[name] for name in methods} == before


def test_own_switch(recorder: Recorder) -> None:
    """The hook can be put on and taken off by itself, and twice."""
    from mlspan.hooks.xgboost import XGBoostInstrumentor

    booster = xgb()
    for _ in range(2):
        XGBoostInstrumentor().instrument(tracer_provider=recorder.provider)
        booster.predict(_matrix())
        XGBoostInstrumentor().uninstrument()
        booster.predict(_matrix())
    assert recorder.names() == ["predict Booster"] * 2


def test_models_are_not_kept(hooked: Recorder) -> None:
    """A booster that the program drops is gone."""
    booster = xgb()
    booster.predict(_matrix())
    gone = weakref.ref(booster)
    del booster
    gc.collect()
    assert gone() is None


def test_under_opentelemetry_instrument(hooked: Recorder, tmp_path: Path) -> None:
    """A program that knows nothing of mlspan has its span, below its own, with the version that this process finds."""
    file, program = tmp_path / "model.ubj", tmp_path / "program.py"
    booster = xgb()
    booster.save_model(file)
    booster.predict(_matrix())
    program.write_text(
        "import sys, numpy, xgboost\n"
        "from opentelemetry import trace\n"
        "booster = xgboost.Booster({'nthread': 1}, model_file=sys.argv[1])\n"
        "with trace.get_tracer('program').start_as_current_span('request'):\n"
        "    booster.predict(xgboost.DMatrix(numpy.ones((2, 4))))\n"
    )
    with OtlpSink() as sink:
        run(sink, [sys.executable, program, file])
        spans = {span.name: span for span in sink.wait(lambda spans: len(spans) >= 2)}
    assert set(spans) == {"request", "predict Booster"}
    span = spans["predict Booster"]
    assert span.parent_id == spans["request"].span_id
    assert span.attributes["ml.model.version"] == one(hooked).attributes["ml.model.version"]
    assert span.scope_attributes["ml.prediction.classes"] == ["0", "1"]
