"""Methods that are no plain functions: what is left alone, and descriptors that stay what they were."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

import mlspan
from mlspan.guard import failures
from tests.instrumentation.conftest import Recorder

Data = tuple[np.ndarray, np.ndarray]


def test_left_alone(hooked: Recorder, data: Data) -> None:
    """Class methods, static methods and properties of these names are not touched."""

    class Odd(BaseEstimator):
        @staticmethod
        def predict(X: Any) -> Any:
            return X

        @classmethod
        def score(cls, X: Any) -> Any:
            return cls

        @property
        def transform(self) -> Any:
            return 5

        @functools.cached_property
        def fit(self) -> Any:
            return 6

    assert (Odd.predict(3), Odd.score(1), Odd().transform, Odd().fit) == (3, Odd, 5, 6)
    assert hooked.names() == []


def test_other_descriptors(hooked: Recorder, data: Data) -> None:
    """A descriptor that makes its method at each access is asked each time, and traced."""

    class Mine(ClassifierMixin, BaseEstimator):
        def _work(self, times: int, X: Any) -> Any:
            return [times] * len(X)

        predict = functools.partialmethod(_work, 2)

    assert Mine().predict(data[0]) == [2] * 60
    assert hooked.names() == ["predict Mine"]
    assert str(inspect.signature(Mine().predict)) == "(X: Any) -> Any"


class _Later:
    """Answers that are there when they are awaited or iterated over."""

    async def predict(self, X: Any) -> Any:
        await asyncio.sleep(0)
        return X

    def transform(self, X: Any) -> Iterator[Any]:
        yield X

    async def score_samples(self, X: Any) -> AsyncIterator[Any]:
        yield X


ASKED = [
    ("predict", inspect.iscoroutinefunction),
    ("transform", inspect.isgeneratorfunction),
    ("score_samples", inspect.isasyncgenfunction),
]


@pytest.mark.parametrize(("name", "ask"), ASKED, ids=[name for name, _ in ASKED])
def test_methods_that_answer_later(hooked: Recorder, name: str, ask: Callable[[object], bool]) -> None:
    """Coroutine and generator functions stay what frameworks know them by and are not traced, which is told."""

    class Mine(_Later, BaseEstimator):
        async def predict(self, X: Any) -> Any:
            return X

    for model in (Mine(), mlspan.instrument_model(_Later())):
        assert ask(getattr(model, name))
    assert asyncio.run(Mine().predict(3)) == 3
    assert hooked.names() == []
    assert failures()[f"hooks: _Later.{name}"]


def test_calls_within_a_models_own(hook: Callable[..., Recorder], data: Data) -> None:
    """scikit-learn's methods pass calls within a model's own on at once, unless they are steps; their errors, too."""

    class Mine(ClassifierMixin, BaseEstimator):
        def fit(self, X: Any, y: Any) -> "Mine":
            self.part_ = LogisticRegression().fit(X, y)
            self.classes_ = self.part_.classes_
            return self

        def predict(self, X: Any) -> Any:
            return self.part_.predict(X)

    for steps, expected in ((0, ["predict Mine"]), (1, ["predict part_", "predict Mine"])):
        recorder = hook(capture_steps=steps)
        model = Mine().fit(*data)
        recorder.spans()
        model.predict(data[0])
        assert recorder.names() == expected
        with pytest.raises(ValueError, match="features") as caught:
            model.predict(data[0][:, :2])
        assert not [entry for entry in caught.traceback if "mlspan" in str(entry.path)]
        recorder.spans()
        model.part_.predict(data[0])
        assert recorder.names() == ["predict LogisticRegression"]
