"""Metric names, as registry.yaml defines them, with their units and instruments."""

from typing import Final, NamedTuple


class Metric(NamedTuple):
    """One metric: name, instrument (counter, gauge, histogram), UCUM unit, one-sentence description."""

    name: str
    instrument: str
    unit: str
    description: str


ML_OPERATION_DURATION: Final = Metric(
    "ml.operation.duration",
    "histogram",
    "s",
    "Duration of model calls.",
)

ML_PREDICTION_COUNT: Final = Metric(
    "ml.prediction.count",
    "counter",
    "{row}",
    "Rows predicted, by predicted class.",
)

ML_ANOMALY_COUNT: Final = Metric(
    "ml.anomaly.count",
    "counter",
    "{call}",
    "Model calls flagged as anomalous.",
)

ML_DRIFT_PSI: Final = Metric(
    "ml.drift.psi",
    "gauge",
    "1",
    "Population stability index of the window against the reference.",
)

ML_DRIFT_JENSEN_SHANNON: Final = Metric(
    "ml.drift.jensen_shannon",
    "gauge",
    "1",
    "Jensen-Shannon distance, base 2.",
)

ML_DRIFT_KS: Final = Metric(
    "ml.drift.ks",
    "gauge",
    "1",
    "Two-sample Kolmogorov-Smirnov statistic over the reference's bins.",
)

ML_DRIFT_WASSERSTEIN: Final = Metric(
    "ml.drift.wasserstein",
    "gauge",
    "1",
    "Wasserstein-1 distance in units of the reference's standard deviation.",
)

ML_DRIFT_CHI2: Final = Metric(
    "ml.drift.chi2",
    "gauge",
    "1",
    "Chi-squared statistic of the contingency table of reference and window.",
)

ML_DRIFT_P_VALUE: Final = Metric(
    "ml.drift.p_value",
    "gauge",
    "1",
    "p-value of the feature's test (KS for numeric, chi-squared for categorical), uncorrected.",
)

ML_DRIFT_WINDOW_ROWS: Final = Metric(
    "ml.drift.window.rows",
    "gauge",
    "{row}",
    "Weighted rows in the drift window.",
)

ML_FEATURE_MISSING_RATIO: Final = Metric(
    "ml.feature.missing.ratio",
    "gauge",
    "1",
    "Share of missing values in the window.",
)

ML_FEATURE_UNSEEN_RATIO: Final = Metric(
    "ml.feature.unseen.ratio",
    "gauge",
    "1",
    "Share of values in the window that the reference never had (new category, or outside its range).",
)

ML_QUALITY_ACCURACY: Final = Metric(
    "ml.quality.accuracy",
    "gauge",
    "1",
    "Share of labelled rows predicted right.",
)

ML_QUALITY_PRECISION: Final = Metric(
    "ml.quality.precision",
    "gauge",
    "1",
    "Precision; of the last class for two classes, macro-averaged for more.",
)

ML_QUALITY_RECALL: Final = Metric(
    "ml.quality.recall",
    "gauge",
    "1",
    "Recall, averaged alike.",
)

ML_QUALITY_F1: Final = Metric(
    "ml.quality.f1",
    "gauge",
    "1",
    "F1, averaged alike.",
)

ML_QUALITY_ROC_AUC: Final = Metric(
    "ml.quality.roc_auc",
    "gauge",
    "1",
    "Area under the ROC curve; one-versus-rest macro average for more than two classes.",
)

ML_QUALITY_LOG_LOSS: Final = Metric(
    "ml.quality.log_loss",
    "gauge",
    "1",
    "Mean negative log-likelihood of the true class, in nats.",
)

ML_QUALITY_BRIER: Final = Metric(
    "ml.quality.brier",
    "gauge",
    "1",
    "Mean squared error of the probability of the last class (two classes), or summed over classes and halved.",
)

ML_QUALITY_MAE: Final = Metric(
    "ml.quality.mae",
    "gauge",
    "1",
    "Mean absolute error.",
)

ML_QUALITY_RMSE: Final = Metric(
    "ml.quality.rmse",
    "gauge",
    "1",
    "Root mean squared error.",
)

ML_QUALITY_R2: Final = Metric(
    "ml.quality.r2",
    "gauge",
    "1",
    "Coefficient of determination.",
)

ML_QUALITY_LABELS: Final = Metric(
    "ml.quality.labels",
    "gauge",
    "{row}",
    "Labelled rows that the quality window rests on.",
)

ML_QUALITY_COVERAGE: Final = Metric(
    "ml.quality.coverage",
    "gauge",
    "1",
    "Labelled share of the quality window's captured rows.",
)

ML_QUALITY_OUTCOMES: Final = Metric(
    "ml.quality.outcomes",
    "counter",
    "{row}",
    "Labelled predictions, by whether they were right.",
)

ML_FEEDBACK_LABELS: Final = Metric(
    "ml.feedback.labels",
    "counter",
    "{label}",
    "Labels received, by what became of them (state = joined, waiting, duplicate, conflicting, expired, invalid).",
)

ML_WEIGHT_UNKNOWN_RATIO: Final = Metric(
    "ml.weight.unknown.ratio",
    "gauge",
    "1",
    "Share of model spans that carry no sampling weight and are counted once.",
)

DURATION_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Recommended bucket boundaries of ml.operation.duration, in seconds."""
