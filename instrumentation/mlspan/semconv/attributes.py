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

ML_CALL_SLOW: Final = "ml.call.slow"
"""Whether the call took longer than ml.call.p99; absent otherwise."""

ML_CALL_P99: Final = "ml.call.p99"
"""The running 99th percentile in seconds of the model version's calls of this method and size, before this call."""

ML_CALL_MEMORY_BEFORE: Final = "ml.call.memory.before"
"""Resident memory of the process in bytes before the call; on the calls after a slow one."""

ML_CALL_MEMORY_AFTER: Final = "ml.call.memory.after"
"""The same after the call."""

ML_CALL_DEVICE_MEMORY_BEFORE: Final = "ml.call.device_memory.before"
"""Bytes that torch had allocated on the GPU before the call; on the calls after a slow one."""

ML_CALL_DEVICE_MEMORY_AFTER: Final = "ml.call.device_memory.after"
"""The same after the call."""

ML_STEP_NAME: Final = "ml.step.name"
"""What the part is called within the one that called it; a pipeline's step, a submodule, an attribute."""

ML_STEP_PATH: Final = "ml.step.path"
"""The names from the model down to the part, separated by dots."""

ML_STEP_CLASS: Final = "ml.step.class"
"""The fully qualified class of the part."""

ML_STEP_INPUT_SHAPE: Final = "ml.step.input.shape"
"""Shape of the step's first input."""

ML_STEP_OUTPUT_SHAPE: Final = "ml.step.output.shape"
"""Shape of the step's result; of several tensors, of the first."""

ML_STEP_OUTPUT_DTYPE: Final = "ml.step.output.dtype"
"""Data type of that tensor."""

ML_STEP_OUTPUT_MEAN: Final = "ml.step.output.mean"
"""Mean of that tensor's finite values, of a bounded sample of them."""

ML_STEP_OUTPUT_STD: Final = "ml.step.output.std"
"""Standard deviation of the same values."""

ML_STEP_OUTPUT_ZEROS: Final = "ml.step.output.zeros"
"""Share of values that are zero, from 0 to 1."""

ML_STEP_OUTPUT_NON_FINITE: Final = "ml.step.output.non_finite"
"""Share of values that are NaN or infinite, from 0 to 1."""

ML_STEP_SELF_TIME: Final = "ml.step.self_time"
"""Seconds that the step took, without the steps within it."""

ML_STEP_DEVICE_SELF_TIME: Final = "ml.step.device.self_time"
"""Seconds that the step's work took on the device, without the steps within it."""

ML_STEPS_DROPPED: Final = "ml.steps.dropped"
"""Calls of parts within this call that have no span, because there were too many."""

ML_PROFILE_STACK: Final = "ml.profile.stack"
"""Files, lines and functions, innermost last; no values."""

ML_PROFILE_SELF_TIME: Final = "ml.profile.self_time"
"""Seconds spent in the innermost function of the stack, as sampled."""

ML_PREDICTION_CLASS: Final = "ml.prediction.class"
"""The predicted class."""

ML_PREDICTION_VALUE: Final = "ml.prediction.value"
"""The predicted number of a regression, or the raw score of a decision function."""

ML_PREDICTION_SCORE: Final = "ml.prediction.score"
"""The model's probability of the predicted class."""

ML_PREDICTION_ENTROPY: Final = "ml.prediction.entropy"
"""Shannon entropy of the predicted probabilities in nats, the mean of the captured rows."""

ML_PREDICTION_ID: Final = "ml.prediction.id"
"""The user's own key of the predicted row (an order number), or trace id-span id-row."""

ML_PREDICTION_CLASSES: Final = "ml.prediction.classes"
"""The classes the model knows, in the order of its probability columns. On the instrumentation scope."""

ML_PREDICTION_OUTPUTS: Final = "ml.prediction.outputs"
"""Outputs of a multilabel model in their order, each of which holds or does not. On the instrumentation scope."""

ML_FEEDBACK_LABEL: Final = "ml.feedback.label"
"""Truth of ml.prediction.id: class (string), number (double), outputs that hold (string[]), or of each (boolean[])."""

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

ML_QUALITY_METRIC: Final = "ml.quality.metric"
"""The performance figure that a measurement is about."""

ML_QUALITY_QUANTILE: Final = "ml.quality.quantile"
"""Which quantile of the delays a measurement is."""

ML_SEGMENT_NAME: Final = "ml.segment.name"
"""What the rows are cut by, a feature or an attribute of the resource that sent them."""

ML_SEGMENT_VALUE: Final = "ml.segment.value"
"""The value, bin or category that the segment's rows have."""

ML_VERSION_BASELINE: Final = "ml.version.baseline"
"""The model version that another one is compared with."""

ML_INCIDENT_ID: Final = "ml.incident.id"
"""The incident's own key, the same in its events, its spans and its notifications."""

ML_INCIDENT_STATUS: Final = "ml.incident.status"
"""What has just become of the incident."""

ML_INCIDENT_SEVERITY: Final = "ml.incident.severity"
"""How bad the incident is; the worst of its findings so far."""

ML_INCIDENT_SUMMARY: Final = "ml.incident.summary"
"""What is wrong in one or two sentences."""

ML_INCIDENT_SUBJECT: Final = "ml.incident.subject"
"""The most important series of the incident."""

ML_INCIDENT_SUBJECTS: Final = "ml.incident.subjects"
"""All series of the incident, most important first."""

ML_INCIDENT_VALUE: Final = "ml.incident.value"
"""The most important series' value in its last bad window."""

ML_INCIDENT_EXPECTED: Final = "ml.incident.expected"
"""What that value was expected to be."""

ML_INCIDENT_EFFECT: Final = "ml.incident.effect"
"""The difference of the two, in the series' unit."""

ML_INCIDENT_P_VALUE: Final = "ml.incident.p_value"
"""The p-value of the judgement, where it has one."""

ML_INCIDENT_START: Final = "ml.incident.start"
"""Start of the first bad window, as RFC 3339."""

ML_MONITOR_NAMES: Final = "ml.monitor.names"
"""The monitors that told of it."""

ERROR_TYPE: Final = "error.type"
"""OpenTelemetry's own: the class of the exception that the call raised."""
