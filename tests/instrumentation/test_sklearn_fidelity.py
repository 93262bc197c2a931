"""Under the hooks estimators are what they were: results, exceptions, pickles, clones, signatures, every attribute."""

import copy
import inspect
import pickle
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.metaestimators import available_if

import mlspan
from mlspan.hooks.base import Delegate, original_of
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]


def _all_attributes() -> dict[tuple[type, str], object]:
    """Every attribute of every class that estimators are made of."""
    classes: set[type] = set()
    waiting = [BaseEstimator]
    while waiting:
        cls = waiting.pop()
        classes.update(cls.__mro__)
        waiting.extend(type.__subclasses__(cls))
    # Caches that Python itself keeps on classes are nobody's attributes.
    passing = {"__annotations_cache__", "__annotations__", "_abc_impl", "__weakref__", "__dict__"}
    return {(cls, name): value for cls in classes for name, value in vars(cls).items() if name not in passing}


def test_uninstrument_restores_every_attribute(recorder: Recorder, data: Data) -> None:
    """After uninstrument() every attribute of every class is the same object as before, and none is added."""
    before = _all_attributes()
    mlspan.instrument(tracer_provider=recorder.provider)
    changed = {key for key, value in _all_attributes().items() if before.get(key) is not value}
    mlspan.uninstrument()
    after = _all_attributes()
    assert len(changed) > 100
    assert {key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)} == set()


def test_classes_defined_meanwhile_are_restored(recorder: Recorder) -> None:
    """A class that was defined under the hooks is afterwards what it would have been without them."""
    bodies: dict[str, Any] = {}

    def define() -> type:
        class Mine(TransformerMixin, BaseEstimator):
            def fit(self, X: Any, y: Any = None) -> Any:
                return self

            def transform(self, X: Any) -> Any:
                return X

            predict = LogisticRegression.predict

            @available_if(lambda self: True)  # type: ignore[untyped-decorator]  # scikit-learn has no types
            def score(self, X: Any, y: Any = None) -> float:
                return 1.0

            bodies["fit"], bodies["transform"] = fit, transform

        return Mine

    mlspan.instrument(tracer_provider=recorder.provider)
    mine = define()
    assert original_of(vars(mine)["fit"]) is bodies["fit"]
    assert isinstance(vars(mine)["score"], Delegate)
    mlspan.uninstrument()
    assert vars(mine)["fit"] is bodies["fit"]
    # scikit-learn's own wrapper for set_output, around the function itself and not around one of ours.
    assert vars(mine)["transform"].__wrapped__ is bodies["transform"]
    assert vars(mine)["predict"] is LogisticRegression.predict
    assert original_of(LogisticRegression.predict) is None
    assert type(vars(mine)["score"]) is type(vars(Pipeline)["predict"])


def test_twice(recorder: Recorder, data: Data) -> None:
    """Instrumenting again after uninstrumenting works, and makes one span per call."""
    for _ in range(3):
        mlspan.instrument(tracer_provider=recorder.provider)
        LogisticRegression().fit(*data)
        mlspan.uninstrument()
    LogisticRegression().fit(*data)
    assert recorder.names() == ["fit LogisticRegression"] * 3


def test_bound_method_kept_over_uninstrument(recorder: Recorder, data: Data) -> None:
    """A method that the user took under the hooks goes on working, without spans."""
    mlspan.instrument(tracer_provider=recorder.provider)
    model = LogisticRegression().fit(*data)
    predict = model.predict
    mlspan.uninstrument()
    recorder.spans()
    assert predict(data[0]).tolist() == model.predict(data[0]).tolist()
    assert recorder.names() == []


def test_same_object(hooked: Recorder, data: Data) -> None:
    """The very object that the estimator returned is returned."""
    answer = np.zeros(60)

    class Same(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> Any:
            return self

        def predict(self, X: Any) -> Any:
            return answer

    model = Same()
    assert model.fit(*data) is model
    assert model.predict(data[0]) is answer


_MODELS: list[Callable[[], Any]] = [
    lambda: make_pipeline(StandardScaler(), PCA(2), LogisticRegression()),
    lambda: RandomForestClassifier(5, random_state=0, n_jobs=2),
    lambda: GridSearchCV(SVC(random_state=0), {"C": [0.5, 1.0]}, cv=2),
]


@pytest.mark.parametrize("make", _MODELS)
def test_same_results_and_pickles(recorder: Recorder, data: Data, make: Callable[[], Any]) -> None:
    """Fitted attributes, predictions and pickles are equal to the byte with and without hooks."""

    def outcome() -> tuple[bytes, bytes, bytes, str]:
        model = make().fit(*data)
        for name in ("refit_time_", "cv_results_"):
            vars(model).pop(name, None)  # these hold times
        return (
            model.predict(data[0]).tobytes(),
            pickle.dumps(model),
            pickle.dumps(model.predict),
            repr(clone(model).get_params()),
        )

    plain = outcome()
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        hooked = outcome()
    finally:
        mlspan.uninstrument()
    assert hooked == plain


def test_pickle_loads_without_hooks(hooked: Recorder, data: Data, tmp_path: Path) -> None:
    """What was pickled under the hooks loads where mlspan is neither imported nor there to be imported."""
    path = tmp_path / "model"
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "from sklearn.base import BaseEstimator, ClassifierMixin\n"
        "from sklearn.utils.metaestimators import available_if\n"
        "class Mine(ClassifierMixin, BaseEstimator):\n"
        "    def fit(self, X, y): self.classes_ = [0, 1]; return self\n"
        "    def predict(self, X): return [self.classes_[1]] * len(X)\n"
        "    @available_if(lambda self: hasattr(self, 'classes_'))\n"
        "    def score(self, X, y): return 0.5\n",
        namespace,
    )
    own = namespace["Mine"]().fit(*data)
    assert original_of(vars(type(own))["predict"]) is not None
    path.write_bytes(
        pickle.dumps([pickle.dumps(model.predict), cloudpickle.dumps(own), cloudpickle.dumps(own.predict)])
    )
    program = (
        "import pickle, sys\n"
        "sys.modules['mlspan'] = None\n"
        "bound, own, own_bound = [pickle.loads(part) for part in pickle.load(open(sys.argv[1], 'rb'))]\n"
        "print(len(bound([[0.0] * 4])), own.predict([1, 2]), own_bound([1]), own.score([1], [1]))\n"
        "print(hasattr(type(own)(), 'score'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == ["1 [1, 1] [1] 0.5", "False", ""], done.stderr


def test_clone_and_deepcopy(hooked: Recorder, data: Data) -> None:
    """Clones and copies are models of their own."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)
    copied = copy.deepcopy(model)
    cloned = clone(model)
    with pytest.raises(NotFittedError):
        cloned.predict(data[0])
    cloned.fit(data[0][:20], data[1][:20])
    hooked.spans()
    model.predict(data[0])
    copied.predict(data[0])
    cloned.predict(data[0])
    first, second, third = [(span.attributes or {})["ml.model.version"] for span in hooked.spans()]
    assert first == second != third


def test_parameters(hooked: Recorder) -> None:
    """get_params and set_params know nothing of the hooks."""
    model = make_pipeline(StandardScaler(), LogisticRegression())
    assert model.set_params(logisticregression__C=3.0).get_params()["logisticregression__C"] == 3.0


def test_hasattr_follows_available_if(hooked: Recorder, data: Data) -> None:
    """A method that is not available is not there, with the same message as without hooks."""
    model: Any
    for model in (
        SGDClassifier(loss="hinge"),
        make_pipeline(StandardScaler(), SGDClassifier(loss="hinge")),
        GridSearchCV(SGDClassifier(loss="hinge"), {}),
    ):
        assert not hasattr(model, "predict_proba")
        with pytest.raises(AttributeError, match="predict_proba"):
            model.predict_proba  # noqa: B018 - that it raises is the point
    assert hasattr(SGDClassifier(loss="log_loss"), "predict_proba")
    assert hasattr(Pipeline, "predict_proba")
    assert not hasattr(make_pipeline(StandardScaler()), "predict")
    transformer: Any = make_pipeline(StandardScaler())
    assert callable(transformer.transform)


def test_method_is_found_again(hooked: Recorder, data: Data) -> None:
    """A bound method of an available_if method has its model, name and pickle."""
    model: Any = make_pipeline(StandardScaler(), LogisticRegression()).fit(*data)
    assert isinstance(model.predict_proba, types.MethodType)
    assert id(model.predict_proba.__self__) == id(model)
    assert pickle.loads(pickle.dumps(model.predict_proba))(data[0]).shape == (60, 2)
    assert model.predict_proba == model.predict_proba


@pytest.mark.parametrize(
    "method",
    [LogisticRegression.predict, LogisticRegression.fit, StandardScaler.fit_transform, Pipeline.predict_proba],
)
def test_signature_and_documentation(recorder: Recorder, method: Any) -> None:
    """inspect, help() and functools see the function that they saw."""
    cls, name = (Pipeline if "Pipeline" in method.__qualname__ else None), method.__name__
    owner = cls or next(c for c in (StandardScaler, LogisticRegression) if getattr(c, name, None) == method)
    before = inspect.signature(method), inspect.getdoc(method), method.__qualname__, method.__module__
    arguments = inspect.getfullargspec(method)
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        now = getattr(owner, name)
        assert now is not method
        assert inspect.isfunction(now)
        assert (inspect.signature(now), inspect.getdoc(now), now.__qualname__, now.__module__) == before
        if cls is None:
            if not hasattr(method, "__wrapped__"):
                assert inspect.getfullargspec(now) == arguments
            assert inspect.unwrap(now) is inspect.unwrap(method)
            assert pickle.loads(pickle.dumps(now)) is now
    finally:
        mlspan.uninstrument()


def test_traceback_has_the_users_frames_only(recorder: Recorder, data: Data) -> None:
    """An exception passes through with type, message, cause and exactly the frames that it had without hooks."""

    class Fails(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> Any:
            return self

        def transform(self, X: Any) -> Any:
            return X

        def predict(self, X: Any) -> Any:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise ValueError("second") from error

    model = GridSearchCV(Pipeline([("f", Fails()), ("g", Fails())]), {}, cv=2, scoring=lambda *_: 0.0)

    def outcome() -> tuple[list[tuple[str, str]], str, str]:
        model.fit(*data)
        try:
            model.predict(data[0])
        except ValueError as error:
            frames = [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
            return frames, str(error), repr(error.__cause__)
        raise AssertionError

    plain = outcome()
    mlspan.instrument(tracer_provider=recorder.provider)
    try:
        hooked = outcome()
    finally:
        mlspan.uninstrument()
    assert hooked == plain
    assert not [name for name, _ in hooked[0] if "mlspan" in name]


def test_error_while_a_class_is_defined(hooked: Recorder) -> None:
    """What a base's __init_subclass__ raises is raised, without a frame of ours."""

    class Strict(BaseEstimator):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            if not hasattr(cls, "must"):
                raise TypeError("must")

    with pytest.raises(TypeError, match="must") as caught:
        type("Fails", (Strict,), {})
    assert not [entry for entry in caught.traceback if "mlspan" in str(entry.path)]
    assert type("Works", (Strict,), {"must": 1}).must == 1  # type: ignore[attr-defined]  # a class of its own


def test_input_is_not_changed(hooked: Recorder, data: Data) -> None:
    """Neither the input nor its flags are touched, and an iterator is not consumed."""
    X = data[0].copy()
    X.flags.writeable = False
    before = X.tobytes()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, data[1])
    model.predict(X)
    assert X.tobytes() == before

    class Eats(ClassifierMixin, BaseEstimator):
        def predict(self, X: Any) -> Any:
            return list(X)

    assert Eats().predict(iter([[1.0], [2.0]])) == [[1.0], [2.0]]


def test_metadata_routing(hooked: Recorder, data: Data) -> None:
    """scikit-learn's metadata routing sees the requests of wrapped methods."""
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        seen = []

        class Wants(ClassifierMixin, BaseEstimator):
            def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
                seen.append(sample_weight)
                self.classes_ = np.unique(y)
                return self

            def predict(self, X: Any) -> Any:
                return np.zeros(len(X), int)

        model = make_pipeline(FunctionTransformer(), Wants().set_fit_request(sample_weight=True))
        model.fit(*data, sample_weight=np.ones(60))
    assert seen[0].shape == (60,)


@pytest.fixture
def _hooks() -> Any:
    mlspan.instrument(tracer_provider=Recorder().provider)
    yield
    mlspan.uninstrument()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_hooks")
@parametrize_with_checks(  # type: ignore[untyped-decorator]  # scikit-learn has no types
    [LogisticRegression(), StandardScaler(), GaussianNB()]
)
def test_estimator_checks(estimator: Any, check: Any) -> None:
    """scikit-learn's own checks of estimators hold under the hooks."""
    check(estimator)
