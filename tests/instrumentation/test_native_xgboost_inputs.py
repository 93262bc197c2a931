"""XGBoost's own matrices as inputs: their columns, rows and types."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse
import xgboost

from tests.instrumentation.conftest import Recorder
from tests.instrumentation.inputs import capture, code
from tests.instrumentation.native_models import ROWS, data, one, xgb

Hook = Callable[..., Recorder]


def _matrix(rows: int = ROWS) -> xgboost.DMatrix:
    return xgboost.DMatrix(data()[0][:rows])


def test_columns_of_a_matrix(hooked: Recorder) -> None:
    """A DMatrix says names, categories, indicators and missing values of its columns."""
    X = data()[0].copy()
    X[:, 1] = np.arange(ROWS) % 3
    X[:, 2] = np.arange(ROWS) % 2
    X[3, 0] = X[4, 1] = np.nan
    columns = {"feature_names": ["amount", "kind", "is_new", "age"], "feature_types": ["q", "c", "i", "float"]}
    matrix = xgboost.DMatrix(X, label=data()[1], enable_categorical=True, **columns)
    booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, matrix, 2)
    booster.predict(matrix)
    seen = one(hooked)
    assert seen.names == ("amount", "kind", "is_new", "age")
    assert seen.scope["ml.feature.types"] == ("numeric", "categorical", "boolean", "numeric")
    assert np.isnan(seen.feature("amount")[3])
    assert seen.payload is not None
    kinds = seen.payload.cells.view(np.uint32)[:, 1].tolist()
    assert kinds[:5] == [code("0"), code("1"), code("2"), code("0"), 0]
    assert seen.feature("is_new")[:3].tolist() == [0, 1, 0]


def test_many_rows(hook: Hook) -> None:
    """Of many rows a sample is sliced out of the matrix, with the answers of the same rows."""
    X = np.random.default_rng(0).standard_normal((5_000, 4)).astype(np.float32)
    X[::7, 2] = np.nan
    booster = xgb()
    recorder = hook(deny=["x1"], max_rows=100)
    answer = booster.predict(xgboost.DMatrix(X))
    payload = one(recorder).payload
    assert payload is not None
    assert payload.total_rows == 5_000
    assert len(payload.cells) == 100
    rows = payload.indices
    assert rows is not None
    np.testing.assert_array_equal(payload.cells.view("<f4"), X[rows][:, [0, 2, 3]])
    np.testing.assert_allclose(payload.scores[:, 1], answer[rows], rtol=1e-6)


def test_frames(hooked: Recorder) -> None:
    """inplace_predict reads frames and sparse matrices as scikit-learn's models do."""
    X, y = data()
    frame = pd.DataFrame(X, columns=list("abcd"))
    booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, xgboost.DMatrix(frame, label=y), 2)
    booster.inplace_predict(frame)
    assert one(hooked).names == ("a", "b", "c", "d")
    booster.inplace_predict(X, validate_features=False)
    assert one(hooked).names == ("a", "b", "c", "d")
    booster.inplace_predict(scipy.sparse.csr_matrix(X))
    assert one(hooked).cells.tolist() == X.tolist()


def test_quantised_matrix(hooked: Recorder) -> None:
    """A quantised matrix holds bins in the place of values: counted, with the answers."""
    answer = xgb().predict(xgboost.QuantileDMatrix(*data()))
    seen = one(hooked)
    assert seen.attributes["ml.capture.error"] == "unsupported input: QuantileDMatrix"
    assert (seen.attributes["ml.input.rows"], seen.attributes["ml.input.columns"]) == (ROWS, 4)
    assert seen.payload is not None
    np.testing.assert_allclose(seen.payload.scores[:, 1], answer, rtol=1e-6)


def test_arrays_on_a_device() -> None:
    """An array in a GPU's memory is not asked for its values, which it would refuse to give."""

    class OnDevice:
        """Like cupy's."""

        __cuda_array_interface__ = None
        shape = (2, 4)

        def __array__(self) -> np.ndarray:
            raise TypeError("implicit conversion")

    assert capture(OnDevice()).error == "unsupported input: OnDevice"
