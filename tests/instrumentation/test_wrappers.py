"""LightGBM's and XGBoost's scikit-learn wrappers: what they are asked for besides the model's answer."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

import mlspan
from tests.instrumentation.conftest import Recorder
from tests.instrumentation.native_models import data


def wrapper(library: str) -> Any:
    """A fitted classifier of two rounds."""
    if library == "lightgbm":
        return lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1, min_child_samples=5).fit(*data())
    return xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(*data())


@pytest.mark.parametrize(
    ("library", "method", "flag"),
    [
        ("lightgbm", "predict", "raw_score"),
        ("lightgbm", "predict", "pred_leaf"),
        ("lightgbm", "predict", "pred_contrib"),
        ("lightgbm", "predict_proba", "raw_score"),
        ("lightgbm", "predict_proba", "pred_contrib"),
        ("xgboost", "predict", "output_margin"),
    ],
)
@pytest.mark.parametrize("rows", [1, 60])
def test_what_is_no_answer(hooked: Recorder, library: str, method: str, flag: str, rows: int) -> None:
    """Margins, leaves and contributions are counted, and not taken for classes or probabilities."""
    model = wrapper(library)
    hooked.spans()
    getattr(model, method)(data()[0][:rows], **{flag: True})
    (span,) = hooked.spans()
    assert set(span.attributes or {}) == {
        "ml.operation.name",
        "ml.model.name",
        "ml.model.version",
        "ml.input.rows",
        "ml.input.columns",
    }
    getattr(model, method)(data()[0][:rows], **{flag: False})
    (span,) = hooked.spans()
    assert "ml.payload" in (span.attributes or {})


def test_explanations_leave_the_ids_of_the_answer(hooked: Recorder) -> None:
    """A service that explains its prediction keeps the prediction's id, to send the label by."""
    model = wrapper("lightgbm")
    row = data()[0][:1]
    with mlspan.prediction_context() as context:
        model.predict_proba(row)
        ids = list(context.ids)
        explained = model.predict(row, pred_contrib=True)
    assert np.shape(explained) == (1, 5)
    assert len(ids) == 1
    assert list(context.ids) == ids
    spans = hooked.spans()
    assert [span.name.partition(" ")[0] for span in spans] == ["fit", "predict_proba", "predict"]


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_columns_without_names(hooked: Recorder, library: str) -> None:
    """Columns that had no names at the fit have none of the library's making."""
    model = wrapper(library)
    hooked.spans()
    model.predict_proba(data()[0][:1])
    (span,) = hooked.spans()
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.attributes or {})["ml.feature.names"] == ("x0", "x1", "x2", "x3")
