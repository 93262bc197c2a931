"""Attribute names on spans, scopes, metrics and log events, as registry.yaml defines them."""

from typing import Final

SCHEMA_URL: Final = "https://mlspan.dev/schemas/0.1.0"
"""The schema of all names in this package."""

ML_MODEL_NAME: Final = "ml.model.name"
"""The model's name, as its users know it."""

ML_MODEL_VERSION: Final = "ml.model.version"
"""The model's version; without one from the user, a fingerprint of the fitted model."""

ML_MODEL_CLASS: Final = "ml.model.class"
"""The fully qualified class of the model object."""

ML_MODEL_TASK: Final = "ml.model.task"
"""What the model is for."""

ML_FRAMEWORK_NAME: Final = "ml.framework.name"
"""The library that the model's class comes from."""

ML_FRAMEWORK_VERSION: Final = "ml.framework.version"
"""The version of that library."""

ML_FEATURE_NAMES: Final = "ml.feature.names"
"""Names of the captured columns; x0, x1, … where the input has none."""

ML_FEATURE_TYPES: Final = "ml.feature.types"
"""One of numeric, boolean, categorical for each captured column."""

ML_FEATURE_NAME: Final = "ml.feature.name"
"""The one feature that a measurement is about."""

ML_OPERATION_NAME: Final = "ml.operation.name"
"""The method that was called."""

ML_INPUT_ROWS: Final = "ml.input.rows"
"""Rows in the call's input."""

ML_INPUT_COLUMNS: Final = "ml.input.columns"
"""Columns in the call's input, captured or not."""

ML_INPUT_SUMMARY: Final = "ml.input.summary"
"""Readable features of the first captured row; set by the processor in the payload's place."""

ML_PAYLOAD: Final = "ml.payload"
"""The captured rows, predictions and scores as packed bytes (docs/payload.md), or as base64 text of them."""

ML_CAPTURE_ERROR: Final = "ml.capture.error"
"""Why a call's rows, or some of its columns, are not captured; holds no data."""

ML_PREDICTION_CLASS: Final = "ml.prediction.class"
"""The predicted class."""

ML_PREDICTION_VALUE: Final = "ml.prediction.value"
"""The predicted number of a regression, or the raw score of a decision function."""

ML_PREDICTION_SCORE: Final = "ml.prediction.score"
"""The model's probability of the predicted class."""

ML_PREDICTION_ID: Final = "ml.prediction.id"
"""The user's own key of the predicted row (an order number), or trace id-span id-row."""

ML_PREDICTION_CLASSES: Final = "ml.prediction.classes"
"""The classes the model knows, in the order of its probability columns. On the instrumentation scope."""

ML_FEEDBACK_LABEL: Final = "ml.feedback.label"
"""The true class (string) or number (double) of the prediction that ml.prediction.id names."""

ML_ANOMALY_SCORE: Final = "ml.anomaly.score"
"""One minus the share of reference rows at least as unusual; over several rows, Bonferroni-corrected."""

ML_ANOMALY_FLAG: Final = "ml.anomaly.flag"
"""Whether the score reaches the configured threshold."""

ML_ANOMALY_FEATURES: Final = "ml.anomaly.features"
"""The features that contribute most to a flagged score, most unusual first."""

ML_QUALITY_KIND: Final = "ml.quality.kind"
"""Where a performance figure comes from."""

ML_QUALITY_OUTCOME: Final = "ml.quality.outcome"
"""Whether a labelled prediction was right."""

ERROR_TYPE: Final = "error.type"
"""OpenTelemetry's own: the class of the exception that the call raised."""
