"""References that an instrumented fit leaves: content, performance, files, and what must not happen."""

import json
import os
import pickle
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.model_selection
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlspan import evaluation, reference
from mlspan.capture import classes_of
from mlspan.config import Settings
from mlspan.evaluation import evaluation_of, recipe
from mlspan.fingerprint import fingerprint
from mlspan.hooks import model_selection
from mlspan.profile import Profile, from_json
from mlspan.reference import after_cross_validation, after_fit, after_score, evaluating
from mlspan.semconv.attributes import ML_MODEL_TASK
from tests.instrumentation.inputs import code

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RANDOM.integers(18, 90, 300).astype(float),
        "carrier": RANDOM.choice(["AA", "UA"], 300),
        "ssn": RANDOM.choice(["1", "2"], 300),
        "flag": RANDOM.random(300) < 0.5,
    }
)
Y = np.where(FRAME["age"] + 5 * RANDOM.normal(size=300) > 50, "late", "on time")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test starts without evaluations and references, and leaves scikit-learn as it was."""
    evaluation.forget()
    reference.forget()
    yield
    model_selection.uninstall()
    evaluation.forget()
    reference.forget()


def _identity(model: Any, name: str = "delays", version: str | None = "7") -> Any:
    return SimpleNamespace(
        name=name,
        version=version,
        classes=classes_of(model),
        feature_names=None,
        scope={ML_MODEL_TASK: "classification"},
    )


def _model() -> Any:
    columns = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["carrier", "ssn"]))
    return make_pipeline(columns, LogisticRegression())


def _fit(folder: Path, X: Any = FRAME, y: Any = Y, model: Any = None, **settings: Any) -> Profile:
    model = _model() if model is None else model
    model.fit(X, y)
    path = after_fit(model, _identity(model), X, Settings(reference_dir=str(folder), **settings))
    assert path is not None
    return _read(path)


def _read(path: Path) -> Profile:
    return from_json(path.read_text())


def test_profile_of_a_fit(tmp_path: Path) -> None:
    """The file has every feature's distribution, readable categories, the labels' shares, and who the model is."""
    profile = _fit(tmp_path / "new" / "folder")
    assert (profile.model_name, profile.model_version, profile.task) == ("delays", "7", "classification")
    assert (profile.classes, profile.rows, profile.source) == (("late", "on time"), 300, "fit")
    assert [(feature.name, feature.type) for feature in profile.features] == [
        ("age", "numeric"),
        ("carrier", "categorical"),
        ("ssn", "categorical"),
        ("flag", "boolean"),
    ]
    carrier = profile.features[1]
    assert carrier.codes is not None
    assert carrier.labels is not None
    assert dict(zip(carrier.codes.tolist(), carrier.labels, strict=True)) == {code("AA"): "AA", code("UA"): "UA"}
    assert profile.features[0].mean == pytest.approx(FRAME["age"].mean())
    # Labels are not answers: what the model says is learnt from what it says.
    assert profile.prediction is None
    assert profile.performance == {}


def test_file_name_and_mode(tmp_path: Path) -> None:
    """The file is named after model and version, holds no path of theirs, and can be read by whom the umask lets."""
    model = LogisticRegression().fit(FRAME[["age"]], Y)
    settings = Settings(reference_dir=str(tmp_path))
    for name, version, file in (
        ("delays", "7", "delays-7.json"),
        ("../a b/ü", None, "_a_b_-unknown.json"),
        ("Pipeline(LogisticRegression)", "fp-0123", "Pipeline(LogisticRegression)-fp-0123.json"),
    ):
        path = after_fit(model, _identity(model, name, version), FRAME[["age"]], settings)
        assert path == tmp_path / file
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "delays-7.json").stat().st_mode) == 0o666 & ~mask
    assert not list(tmp_path.glob(".*"))


def test_nothing_without_being_asked(tmp_path: Path) -> None:
    """No folder, no content, a running cross-validation: no file, and the input is not even opened."""
    X = SimpleNamespace()
    for settings in (Settings(), Settings(reference_dir=str(tmp_path), capture_content=False)):
        assert after_fit(object(), _identity(None), X, settings) is None
    with evaluating():
        assert after_fit(object(), _identity(None), X, Settings(reference_dir=str(tmp_path))) is None
    assert not list(tmp_path.iterdir())


def test_privacy_settings_hold(tmp_path: Path) -> None:
    """Denied columns are not in the file, nor anything that the content hook took away."""

    def hook(found: dict[str, Any]) -> dict[str, Any]:
        found["carrier"] = ["hidden"] * len(found["carrier"])
        return found

    profile = _fit(tmp_path, deny=("ssn",), capture_hook=hook)
    assert [feature.name for feature in profile.features] == ["age", "carrier", "flag"]
    assert profile.features[1].labels == ("hidden",)
    text = (tmp_path / "delays-7.json").read_text()
    assert "ssn" not in text
    assert "UA" not in text
    model = _model().fit(FRAME, Y)
    none = Settings(reference_dir=str(tmp_path / "none"), capture_hook=lambda found: None)
    assert after_fit(model, _identity(model), FRAME, none) is None


def test_large_fits_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than 100,000 rows a sample is read."""
    monkeypatch.setattr(reference, "MAX_ROWS", 1_000)
    X = np.arange(5_000.0).reshape(-1, 1)
    y = X[:, 0] >= 2_500
    profile = _fit(tmp_path, X, y, RandomForestClassifier(2))
    assert profile.rows == 1_000


def test_cross_validation_before_the_fit(tmp_path: Path) -> None:
    """What was cross-validated with the same class and parameters is the performance of what is fitted then."""
    X = FRAME[["age"]]
    scores = sklearn.model_selection.cross_validate(LogisticRegression(), X, Y, scoring=["accuracy", "neg_log_loss"])
    arguments = {"estimator": LogisticRegression(), "X": X, "y": Y, "scoring": ["accuracy", "neg_log_loss"]}
    after_cross_validation("cross_validate", arguments, scores)
    profile = _fit(tmp_path, X, Y, LogisticRegression())
    assert profile.performance == pytest.approx(
        {
            "accuracy": scores["test_accuracy"].mean(),
            "accuracy_sd": scores["test_accuracy"].std(ddof=1),
            "log_loss": -scores["test_neg_log_loss"].mean(),
            "log_loss_sd": scores["test_neg_log_loss"].std(ddof=1),
            "rows": 300,
        }
    )
    assert profile.source == "fit, cross_validate"
    other = _fit(tmp_path, X, Y, LogisticRegression(C=3))
    assert other.performance == {}


def test_cross_validation_after_the_fit(tmp_path: Path) -> None:
    """The file of a fitted model is brought up to date by a later cross-validation of its like."""
    X = FRAME[["age"]]
    model = LogisticRegression()
    _fit(tmp_path, X, Y, model)
    after_cross_validation("cross_val_score", {"estimator": model, "X": X, "y": Y}, np.array([0.5, 0.75]))
    profile = _read(tmp_path / "delays-7.json")
    assert profile.performance == pytest.approx({"accuracy": 0.625, "accuracy_sd": 0.1767767, "rows": 300})
    assert profile.rows == 300
    assert profile.features[0].mean == pytest.approx(X["age"].mean())


def test_out_of_fold_predictions() -> None:
    """Predictions of cross_val_predict are evaluated like scikit-learn does it."""
    X = FRAME[["age"]]
    y = (Y == "late").astype(int)
    model = LogisticRegression()
    for method in ("predict_proba", "predict"):
        result = sklearn.model_selection.cross_val_predict(model, X, y, method=method)
        arguments = {"estimator": model, "X": X, "y": y, "method": method}
        evaluation.forget()
        after_cross_validation("cross_val_predict", arguments, result)
        found = evaluation_of(model).performance(2)
        if method == "predict":
            assert found == pytest.approx({"accuracy": accuracy_score(y, result), "rows": 300})
        else:
            assert found == pytest.approx(
                {
                    "accuracy": accuracy_score(y, result.argmax(axis=1)),
                    "log_loss": log_loss(y, result),
                    "brier": brier_score_loss(y, result[:, 1]),
                    "rows": 300,
                }
            )
    values = FRAME["age"].to_numpy() ** 2
    regression = LinearRegression()
    result = sklearn.model_selection.cross_val_predict(regression, X, values)
    after_cross_validation("cross_val_predict", {"estimator": regression, "X": X, "y": values}, result)
    assert evaluation_of(regression).performance(2) == pytest.approx(
        {
            "mae": mean_absolute_error(values, result),
            "rmse": root_mean_squared_error(values, result),
            "r2": r2_score(values, result),
            "rows": 300,
        }
    )


@pytest.mark.parametrize("scoring", [None, "neg_log_loss", ["accuracy", "f1_macro"]])
def test_search(tmp_path: Path, scoring: Any) -> None:
    """A search's best candidate tells the performance of the model that it is."""
    refit = "accuracy" if isinstance(scoring, list) else True
    model = GridSearchCV(LogisticRegression(), {"C": [0.01, 1]}, scoring=scoring, cv=3, refit=refit)
    profile = _fit(tmp_path, FRAME[["age"]], Y, model)
    assert profile.source == "fit, search"
    if scoring == "neg_log_loss":
        assert profile.performance["log_loss"] == pytest.approx(-model.best_score_)
    else:
        assert profile.performance["accuracy"] == pytest.approx(model.best_score_)
        assert "f1" not in profile.performance
    assert profile.performance["rows"] == 300


def test_score_on_other_data(tmp_path: Path) -> None:
    """A later score on data that the model was not fitted on is noted; one on its training data is not."""
    X = FRAME[["age"]]
    model = LogisticRegression()
    _fit(tmp_path, X, Y, model)
    settings = Settings(reference_dir=str(tmp_path))
    assert after_score(model, X, 0.99, settings) is None
    path = after_score(model, X[:100], 0.75, settings)
    assert path is not None
    assert _read(path).performance == {"accuracy": 0.75, "rows": 100}
    assert _read(path).source == "fit, score"
    assert after_score(LogisticRegression(), X[:100], 0.75, settings) is None
    assert after_score(model, X[:100], 0.75, Settings()) is None


def test_recipes() -> None:
    """Class and parameters, nested ones too, tell which models are alike; fitting and cores do not."""
    assert recipe(LogisticRegression()) == recipe(LogisticRegression(n_jobs=None).fit(FRAME[["age"]], Y))
    assert recipe(LogisticRegression()) != recipe(LogisticRegression(C=2))
    assert recipe(_model()) == recipe(_model().fit(FRAME, Y))
    assert recipe(_model()) != recipe(_model().set_params(logisticregression__C=2))


def test_evaluations_are_bounded() -> None:
    """Only the latest models' figures are kept."""
    for at in range(200):
        evaluation_of(LogisticRegression(C=at + 1))
    assert len(evaluation._evaluations) == evaluation.MAX_EVALUATIONS


def test_wrapped_cross_validation(tmp_path: Path) -> None:
    """The wrapped functions note what they return, return the same, keep their look, are pickled, and are put back."""
    originals = {name: getattr(sklearn.model_selection, name) for name in model_selection.FUNCTIONS}
    model_selection.install(Settings(reference_dir=str(tmp_path)))
    wrapped = sklearn.model_selection.cross_validate
    assert wrapped is not originals["cross_validate"]
    assert (wrapped.__name__, wrapped.__doc__) == ("cross_validate", originals["cross_validate"].__doc__)
    assert pickle.loads(pickle.dumps(wrapped)) is wrapped  # as process pools do
    model, X = LogisticRegression(), FRAME[["age"]]
    result = wrapped(model, X, Y, cv=3)
    assert set(result) == {"fit_time", "score_time", "test_score"}
    assert evaluation_of(model).performance(2)["accuracy"] == pytest.approx(result["test_score"].mean())
    scores = sklearn.model_selection.cross_val_score(model, X, y=Y, cv=4, scoring="f1_macro")
    assert evaluation_of(model).performance(3)["f1"] == pytest.approx(scores.mean())
    # For two classes our F1 is of the last class, and this one is not.
    assert "f1" not in evaluation_of(model).performance(2)
    sklearn.model_selection.cross_val_predict(model, X, Y)
    assert evaluation_of(model).sources == ["cross_validate", "cross_val_score", "cross_val_predict"]
    with pytest.raises(ValueError, match="cv") as caught:
        wrapped(model, X, Y, cv=1)
    assert [entry.name for entry in caught.traceback][:2] == ["test_wrapped_cross_validation", "wrapper"]
    model_selection.uninstall()
    assert {name: getattr(sklearn.model_selection, name) for name in originals} == originals


def test_unasked_cross_validation_is_left_alone() -> None:
    """Without a folder nothing is wrapped."""
    before = sklearn.model_selection.cross_validate
    model_selection.install(Settings())
    assert sklearn.model_selection.cross_validate is before


def test_folds_leave_no_references(tmp_path: Path) -> None:
    """The copies that a cross-validation fits are not the user's model, in other threads neither."""
    settings = Settings(reference_dir=str(tmp_path))
    done = []

    def fold() -> None:
        model = LogisticRegression().fit(FRAME[["age"]], Y)
        done.append(after_fit(model, _identity(model), FRAME[["age"]], settings))

    with evaluating():
        thread = threading.Thread(target=fold)
        thread.start()
        thread.join()
    assert done == [None]
    fold()
    assert done[1] is not None


def test_model_is_not_kept_or_changed(tmp_path: Path) -> None:
    """A reference holds no model alive, and leaves model and data as they are."""
    model = _model().fit(FRAME, Y)
    before, frame = fingerprint(model), FRAME.copy()
    after_fit(model, _identity(model), FRAME, Settings(reference_dir=str(tmp_path)))
    assert fingerprint(model) == before
    pd.testing.assert_frame_equal(frame, FRAME)
    assert len(reference._written) == 1
    del model
    assert not reference._written


def _fail(_: str) -> None:
    raise ValueError


def test_failures_do_not_reach_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that cannot be written, an input that cannot be read: the fit goes on, no half file stays."""
    (tmp_path / "file").write_text("")
    model = LogisticRegression().fit(FRAME[["age"]], Y)
    blocked = Settings(reference_dir=str(tmp_path / "file"))
    assert after_fit(model, _identity(model), FRAME[["age"]], blocked) is None
    assert [r.message for r in caplog.records] == [
        f'no reference profile is left in the folder "{tmp_path}/file": File exists'
    ]
    monkeypatch.setattr("mlspan.guard._raise", False)
    settings = Settings(reference_dir=str(tmp_path / "ok"))
    assert after_fit(model, _identity(model), object(), settings) is None
    after_cross_validation("cross_validate", {}, None)
    monkeypatch.setattr("mlspan.reference.json.loads", _fail)
    assert after_fit(model, _identity(model), FRAME[["age"]], settings) is None
    assert not (tmp_path / "ok").exists() or not list((tmp_path / "ok").iterdir())


def test_files_are_json(tmp_path: Path) -> None:
    """The file is plain JSON, without NaN or infinity."""
    _fit(tmp_path)
    json.loads((tmp_path / "delays-7.json").read_text(), parse_constant=pytest.fail)


def test_instrumented_fit_leaves_a_reference(hook: Any, tmp_path: Path) -> None:
    """With a folder set, fit, cross-validation and score of the user's own code fill one file per fitted model."""
    hook(reference_dir=str(tmp_path), model_name="delays")
    X = FRAME[["age"]]
    sklearn.model_selection.cross_val_score(LogisticRegression(), X, Y, cv=3)
    assert not list(tmp_path.iterdir())
    model = LogisticRegression().fit(X, y=Y)
    (path,) = tmp_path.iterdir()
    assert path.name == f"delays-fp-{fingerprint(model)}.json"
    profile = _read(path)
    assert (profile.source, profile.classes) == ("fit, cross_val_score", ("late", "on time"))
    assert set(profile.performance) == {"accuracy", "accuracy_sd", "rows"}
    score = model.score(X[:50], Y[:50])
    assert _read(path).performance["accuracy"] == score
    GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2).fit(X, Y)
    assert len(list(tmp_path.iterdir())) == 2


def test_fit_without_a_folder_leaves_nothing(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrumented fit writes no file unless asked to."""
    monkeypatch.chdir(tmp_path)
    hook()
    LogisticRegression().fit(FRAME[["age"]], Y)
    assert not list(tmp_path.iterdir())
    assert not reference._written
