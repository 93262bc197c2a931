"""What is remembered of live models: it goes when they go, and changes when they do."""

import gc

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import mlspan
from mlspan.models import Models
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def models(hooked: Recorder) -> Models:
    """The entries of the running instrumentation."""
    running = mlspan.runtime.current()
    assert running is not None
    assert hooked.provider is running.tracer_provider
    return running.emitter.models


def noted(models: Models) -> list[tuple[int, set[int]]]:
    """Which parts are known, and of which models."""
    return sorted(models._containers.items())


def test_parts_of_a_model_are_forgotten_with_it(models: Models, data: Data) -> None:
    """A process that makes one model after the other does not grow."""
    for seed in range(3):
        model = make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=seed)).fit(*data)
        model.predict(data[0])
        assert len(noted(models)) == 6  # two steps, a template, three trees
        del model
        gc.collect()
    assert noted(models) == []


def test_parts_of_an_earlier_fit_are_forgotten(models: Models, data: Data) -> None:
    """A model that is fitted again and again has the parts of its last fit."""
    model = RandomForestClassifier(3, random_state=0)
    kept = []
    for _ in range(3):
        model.fit(*data).predict(data[0])
        kept.append(model.estimators_)  # so that no address is used again
    assert {key for key, _ in noted(models)} == {id(part) for part in (model.estimator_, *model.estimators_)}


def test_parts_of_a_renamed_model_are_noted_once(models: Models, data: Data, hooked: Recorder) -> None:
    """`instrument_model` begins anew, and a fit of a part is still seen."""
    part = LogisticRegression()
    model = Pipeline([("scale", StandardScaler()), ("fit", part)]).fit(*data)
    model.predict(data[0])
    mlspan.instrument_model(model, name="fraud-model")
    assert noted(models) == []
    model.predict(data[0])
    hooked.spans()
    part.set_params(C=0.01).fit(*data)
    model.predict(data[0])
    versions = {(span.attributes or {}).get("ml.model.version") for span in hooked.spans()[-1:]}
    assert versions != {None}
    assert {holder for _, holders in noted(models) for holder in holders} == {id(model)}
