"""Inside a scikit-learn model: child spans of its parts, where the user asks for them, and only then."""

import io
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mlspan
from mlspan.guard import failures
from mlspan.parts import parts_of
from mlspan.steps import MAX_MEMBERS, MAX_SPANS
from mlspan_processor.decode import Calls, Decoder
from mlspan_processor.lean import parse
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]
Hook = Callable[..., Recorder]


class Broken(TransformerMixin, BaseEstimator):
    """Fits, and raises when it is used for one row."""

    def fit(self, X: Any, y: Any = None) -> "Broken":
        """Nothing to learn."""
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        """The same rows, if they are several."""
        if len(X) == 1:
            raise ValueError("secret")
        return X


def _pipeline(*more: tuple[str, Any]) -> Any:
    prepare = ColumnTransformer(
        [
            ("numbers", Pipeline([("scale", StandardScaler())]), [0, 1]),
            ("a", MinMaxScaler(), [2]),
            ("b", MinMaxScaler(), [3]),
        ]
    )
    return Pipeline([("prepare", prepare), *more, ("classify", LogisticRegression())])


def _paths(spans: Any) -> list[tuple[str, str]]:
    """Name and path of the step spans, in the order of their starts."""
    ordered = sorted(spans, key=lambda span: span.start_time)
    return [(span.name, str(span.attributes["ml.step.path"])) for span in ordered if "ml.step.path" in span.attributes]


def _scope(span: ReadableSpan) -> str:
    assert span.instrumentation_scope is not None
    return span.instrumentation_scope.name


def test_no_steps_by_default(hook: Hook, data: Data) -> None:
    """Without the setting a pipeline's call is one span."""
    recorder = hook()
    model = _pipeline().fit(*data)
    recorder.spans()
    model.predict(data[0])
    assert len(recorder.spans()) == 1


def test_pipeline(hook: Hook, data: Data) -> None:
    """Steps, transformers and pipelines within are children with the user's names, each below what called it."""
    recorder = hook(capture_steps=True)
    model = _pipeline().fit(*data)
    recorder.spans()
    model.predict_proba(data[0][:3])
    spans = recorder.spans()
    assert _paths(spans) == [
        ("transform prepare", "prepare"),
        ("transform numbers", "prepare.numbers"),
        ("transform scale", "prepare.numbers.scale"),
        ("transform a", "prepare.a"),
        ("transform b", "prepare.b"),
        ("predict_proba classify", "classify"),
    ]
    by_path = {str((span.attributes or {}).get("ml.step.path", "")): span for span in spans}
    for path, above in (("prepare", ""), ("prepare.numbers", "prepare"), ("prepare.a", "prepare"), ("classify", "")):
        parent, context = by_path[path].parent, by_path[above].get_span_context()
        assert parent is not None
        assert context is not None
        assert parent.span_id == context.span_id


def test_attributes(hook: Hook, data: Data) -> None:
    """A step has names, class, shapes and its own time, in these types, and no rows or answers."""
    recorder = hook(capture_steps=1)
    model = _pipeline().fit(*data)
    recorder.spans()
    model.predict(data[0][:3])
    prepare = next(span for span in recorder.spans() if span.name == "transform prepare")
    attributes = dict(prepare.attributes or {})
    own = attributes.pop("ml.step.self_time")
    assert attributes == {
        "ml.operation.name": "transform",
        "ml.step.name": "prepare",
        "ml.step.path": "prepare",
        "ml.step.class": "sklearn.compose._column_transformer.ColumnTransformer",
        "ml.step.input.shape": (3, 4),
        "ml.step.output.shape": (3, 4),
    }
    assert isinstance(own, float)
    assert prepare.end_time is not None
    assert prepare.start_time is not None
    assert 0 < own <= (prepare.end_time - prepare.start_time) * 1e-9
    assert _scope(prepare) == "mlspan.steps"


def test_self_time_is_without_steps_within(hook: Hook, data: Data) -> None:
    """The own times of a step and of those within it add up to less than the step's duration."""
    recorder = hook(capture_steps=3)
    model = _pipeline().fit(*data)
    recorder.spans()
    model.predict(data[0])
    spans = [
        span for span in recorder.spans() if str((span.attributes or {}).get("ml.step.path", "")).startswith("pre")
    ]
    outer = next(span for span in spans if span.name == "transform prepare")
    assert outer.end_time is not None
    assert outer.start_time is not None
    own: list[Any] = [(span.attributes or {})["ml.step.self_time"] for span in spans]
    assert sum(own) <= (outer.end_time - outer.start_time) * 1e-9


def test_depth(hook: Hook, data: Data) -> None:
    """A depth of one has the model's own parts only."""
    recorder = hook(capture_steps="1")
    model = _pipeline().fit(*data)
    recorder.spans()
    model.predict(data[0])
    assert [path for _, path in _paths(recorder.spans())] == ["prepare", "classify"]


def test_fit_names_clones(hook: Hook, data: Data) -> None:
    """A fit's clones have the names of the parts that they are clones of, in order."""
    recorder = hook(capture_steps=3)
    _pipeline().fit(*data)
    assert [path for _, path in _paths(recorder.spans())] == [
        *("prepare", "prepare.numbers", "prepare.numbers.scale", "prepare.a", "prepare.b", "classify"),
    ]


@pytest.mark.parametrize("final", [None, LogisticRegression()])
def test_folds_of_a_stack(hook: Hook, data: Data, final: Any) -> None:
    """Members that are fitted on folds are not taken for the final estimator, which is of the same class."""
    recorder = hook(capture_steps=1)
    StackingClassifier([("lr", LogisticRegression()), ("dt", DecisionTreeClassifier())], final, cv=2).fit(*data)
    fits = [path for name, path in _paths(recorder.spans()) if name.startswith("fit ")]
    assert fits == ["lr", "dt", "lr", "lr", "dt", "dt", "final_estimator_"]


def test_second_search(hook: Hook, data: Data) -> None:
    """A search that is fitted again calls its candidates as the first time, not as the best one of before."""
    recorder = hook(capture_steps=1)
    search = GridSearchCV(LogisticRegression(), {"C": [1.0, 2.0]}, cv=2)
    first, second = (_paths(recorder.spans()) for _ in range(2) if search.fit(*data))
    assert first == second


def test_search(hook: Hook, data: Data) -> None:
    """A search's candidates are its estimator, its refit the best one, and the whole is bounded and says so."""
    recorder = hook(capture_steps=2)
    search = GridSearchCV(_pipeline(), {"classify__C": np.logspace(-3, 3, 12)}, cv=2).fit(*data)
    spans = recorder.spans()
    steps = _paths(spans)
    assert len(steps) <= MAX_SPANS
    assert 0 < sum(name == "fit estimator" for name, _ in steps) <= MAX_MEMBERS
    (root,) = [span for span in spans if span.name.startswith("fit GridSearchCV")]
    assert isinstance((root.attributes or {})["ml.steps.dropped"], int)
    search.predict(data[0])
    assert [path for _, path in _paths(recorder.spans())] == [
        *("best_estimator_", "best_estimator_.prepare", "best_estimator_.classify"),
    ]


def test_ensembles(hook: Hook, data: Data) -> None:
    """Named members have their names, others a number; at most so many of them are spans."""
    recorder = hook(capture_steps=1)
    vote = VotingClassifier([("left", LogisticRegression()), ("right", LogisticRegression())], voting="soft").fit(*data)
    folds = CalibratedClassifierCV(LogisticRegression(), cv=2).fit(*data)
    forest = RandomForestClassifier(40, random_state=0).fit(*data)
    recorder.spans()
    vote.predict(data[0])
    assert [path for _, path in _paths(recorder.spans())] == ["left", "right"]
    folds.predict_proba(data[0])
    assert [path for _, path in _paths(recorder.spans())] == [f"calibrated_classifiers_[{at}]" for at in range(2)]
    forest.predict_proba(data[0])
    spans = recorder.spans()
    assert len(_paths(spans)) <= MAX_MEMBERS
    assert all("ml.steps.dropped" in (span.attributes or {}) for span in spans if "Forest" in span.name)


def test_threads_are_left_alone(hook: Hook, data: Data) -> None:
    """What an ensemble calls in other threads is no step, and changes nothing."""
    recorder = hook(capture_steps=2)
    alone = RandomForestClassifier(8, random_state=0).fit(*data).predict_proba(data[0])
    model = BaggingClassifier(RandomForestClassifier(8, n_jobs=2, random_state=0), 2, n_jobs=1).fit(*data)
    forest = RandomForestClassifier(8, n_jobs=4, random_state=0).fit(*data)
    recorder.spans()
    assert np.array_equal(forest.predict_proba(data[0]), alone)
    assert _paths(recorder.spans()) == []
    model.predict(data[0])
    assert failures().get("steps: begin") is None


def test_error_in_a_step(hook: Hook, data: Data) -> None:
    """The step that raised and the call are errors without the message; the traceback has the user's frames only."""
    recorder = hook(capture_steps=2)
    model = _pipeline(("break", Broken())).fit(*data)
    recorder.spans()
    with pytest.raises(ValueError, match="secret") as caught:
        model.predict(data[0][:1])
    spans = recorder.spans()
    failed = {span.name for span in spans if not span.status.is_ok}
    assert failed == {"transform break", "predict Pipeline(LogisticRegression)"}
    (broken,) = [span for span in spans if span.name == "transform break"]
    assert (broken.attributes or {})["error.type"] == "ValueError"
    assert "secret" not in str([(span.attributes, span.status.description, span.events) for span in spans])
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert not any("instrumentation/mlspan/" in frame.filename for frame in frames)


def test_sampled_out(hook: Hook, data: Data) -> None:
    """Of a call that the sampler refuses there are no steps."""
    recorder = hook(sampler=ParentBased(ALWAYS_OFF), capture_steps=3)
    _pipeline().fit(*data).predict(data[0])
    assert recorder.spans() == ()


def test_spans_of_the_user_within_a_step(hook: Hook, data: Data) -> None:
    """What a step of the user's does is below the step."""
    recorder = hook(capture_steps=1)
    tracer = recorder.provider.get_tracer("user")

    class Lookup(TransformerMixin, BaseEstimator):
        """Asks somebody."""

        def fit(self, X: Any, y: Any = None) -> "Lookup":
            return self

        def transform(self, X: Any) -> Any:
            with tracer.start_as_current_span("GET /features"):
                return X

    model = Pipeline([("lookup", Lookup()), ("classify", LogisticRegression())]).fit(*data)
    recorder.spans()
    model.predict(data[0])
    spans = {span.name: span for span in recorder.spans()}
    parent, context = spans["GET /features"].parent, spans["transform lookup"].get_span_context()
    assert parent is not None
    assert context is not None
    assert parent.span_id == context.span_id


def test_one_model_only(hook: Hook, data: Data) -> None:
    """`instrument_model` says for one model whether it has steps, and wins over the setting."""
    recorder = hook()
    one, other = _pipeline().fit(*data), _pipeline().fit(*data)
    mlspan.instrument_model(one, steps=1)
    recorder.spans()
    one.predict(data[0])
    assert len(recorder.spans()) == 3
    other.predict(data[0])
    assert len(recorder.spans()) == 1
    recorder = hook(capture_steps=2)
    mlspan.instrument_model(one, steps=False)
    one.predict(data[0])
    assert len(recorder.spans()) == 1


def test_bad_steps_for_a_model(data: Data, caplog: pytest.LogCaptureFixture, hook: Hook) -> None:
    """A value that is no depth is told, and the settings hold."""
    recorder = hook()
    model = mlspan.instrument_model(_pipeline().fit(*data), steps=99)
    assert "steps is 99; valid: true, false, or a whole number to 16" in caplog.text
    recorder.spans()
    model.predict(data[0])
    assert len(recorder.spans()) == 1


def test_results_and_pickles_stay(hook: Hook, data: Data) -> None:
    """Results, and what a model pickles to, are the same with and without steps."""
    model = _pipeline().fit(*data)
    before, packed = model.predict_proba(data[0]), pickle.dumps(model)
    hook(capture_steps=3)
    assert np.array_equal(model.predict_proba(data[0]), before)
    assert pickle.dumps(model) == packed
    assert np.array_equal(pickle.load(io.BytesIO(packed)).predict_proba(data[0]), before)


def test_processor_counts_calls_only(hook: Hook, data: Data) -> None:
    """The processor takes a call with steps for one call of as many rows as it had."""
    recorder = hook(capture_steps=3)
    model = _pipeline().fit(*data)
    recorder.spans()
    model.predict(data[0][:5])
    spans = recorder.spans()
    assert len(spans) > 2
    calls = Calls()
    Decoder().collect(parse(encode_spans(spans).SerializeToString()), calls, has_feedback=False)
    assert len(calls) == 1
    assert sum(len(group.values) for group in calls.groups.values()) == 1
    assert calls.bare == {}


def test_parts_of_odd_objects() -> None:
    """Objects whose attributes raise, or hold what is no estimator, have no parts and raise nothing."""

    class Odd:
        """Has a dictionary of nonsense."""

        steps: Any = None

        def __init__(self) -> None:
            self.steps = ["text", ("one",), ("two", None), ("three", "passthrough"), 7]
            self.estimators_ = np.array([[None, 3]], dtype=object)

    assert parts_of(Odd()) == []
    assert parts_of(3) == []
    assert parts_of(type) == []
