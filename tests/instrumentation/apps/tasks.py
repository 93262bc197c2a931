"""A Celery application over a filesystem broker; the task is told its caller's trace."""

import os
from collections.abc import Mapping

from celery import Celery

from mlspan import prediction_context

_FOLDER = os.environ["BROKER_FOLDER"]
app = Celery("tasks", broker="filesystem://", backend=f"file://{_FOLDER}")
app.conf.broker_transport_options = {
    "data_folder_in": _FOLDER,
    "data_folder_out": _FOLDER,
    "control_folder": _FOLDER,
}


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def score(row: int, headers: Mapping[str, str]) -> int:
    """Predict below the caller's span."""
    from tests.instrumentation.apps.model import predict

    with prediction_context(parent=headers):
        return predict(row)
