"""Metric names, as registry.yaml defines them, with their units and instruments."""

from typing import Final, NamedTuple


class Metric(NamedTuple):
    """One metric: name, instrument (counter, gauge, histogram, updowncounter), UCUM unit, one-sentence description."""

    name: str
    instrument: str
    unit: str
    description: str


ML_OPERATION_DURATION: Final = Metric("ml.operation.duration", "histogram", "s", "Duration of model calls.")

ML_PREDICTION_COUNT: Final = Metric("ml.prediction.count", "counter", "{row}", "Rows predicted, by predicted class.")

ML_ANOMALY_COUNT: Final = Metric("ml.anomaly.count", "counter", "{call}", "Model calls flagged as anomalous.")

ML_DRIFT_PSI: Final = Metric(
    "ml.drift.psi", "gauge", "1", "Population stability index of the window against the reference."
)

ML_DRIFT_JENSEN_SHANNON: Final = Metric("ml.drift.jensen_shannon", "gauge", "1", "Jensen-Shannon distance, base 2.")

ML_DRIFT_KS: Final = Metric(
    "ml.drift.ks", "gauge", "1", "Two-sample Kolmogorov-Smirnov statistic over the reference's bins."
)

ML_DRIFT_WASSERSTEIN: Final = Metric(
    "ml.drift.wasserstein", "gauge", "1", "Wasserstein-1 distance in units of the reference's standard deviation."
)

ML_DRIFT_CHI2: Final = Metric(
    "ml.drift.chi2", "gauge", "1", "Chi-squared statistic of the contingency table of reference and window."
)

ML_DRIFT_P_VALUE: Final = Metric(
    "ml.drift.p_value",
    "gauge",
    "1",
    "p-value of the feature's test (KS for numeric, chi-squared for categorical), uncorrected.",
)

ML_DRIFT_WINDOW_ROWS: Final = Metric("ml.drift.window.rows", "gauge", "{row}", "Weighted rows in the drift window.")

ML_FEATURE_MISSING_RATIO: Final = Metric(
    "ml.feature.missing.ratio", "gauge", "1", "Share of missing values in the window."
)

ML_FEATURE_UNSEEN_RATIO: Final = Metric(
    "ml.feature.unseen.ratio",
    "gauge",
    "1",
    "Share of values in the window that the reference never had (new category, or outside its range).",
)

ML_QUALITY_ACCURACY: Final = Metric("ml.quality.accuracy", "gauge", "1", "Share of labelled rows predicted right.")

ML_QUALITY_PRECISION: Final = Metric(
    "ml.quality.precision", "gauge", "1", "Precision; of the last class for two classes, macro-averaged for more."
)

ML_QUALITY_RECALL: Final = Metric("ml.quality.recall", "gauge", "1", "Recall, averaged alike.")

ML_QUALITY_F1: Final = Metric("ml.quality.f1", "gauge", "1", "F1, averaged alike.")

ML_QUALITY_ROC_AUC: Final = Metric(
    "ml.quality.roc_auc",
    "gauge",
    "1",
    "Area under the ROC curve; one-versus-rest macro average for more than two classes.",
)

ML_QUALITY_LOG_LOSS: Final = Metric(
    "ml.quality.log_loss", "gauge", "1", "Mean negative log-likelihood of the true class, in nats."
)

ML_QUALITY_BRIER: Final = Metric(
    "ml.quality.brier",
    "gauge",
    "1",
    "Mean squared error of the probability of the last class (two classes), or summed over classes and halved.",
)

ML_QUALITY_MAE: Final = Metric("ml.quality.mae", "gauge", "1", "Mean absolute error.")

ML_QUALITY_RMSE: Final = Metric("ml.quality.rmse", "gauge", "1", "Root mean squared error.")

ML_QUALITY_R2: Final = Metric("ml.quality.r2", "gauge", "1", "Coefficient of determination.")

ML_QUALITY_SPECIFICITY: Final = Metric(
    "ml.quality.specificity",
    "gauge",
    "1",
    "Share of the other classes' rows not said to be the last class; macro-averaged for more than two.",
)

ML_QUALITY_BALANCED_ACCURACY: Final = Metric(
    "ml.quality.balanced_accuracy", "gauge", "1", "Mean recall of the classes that labels have."
)

ML_QUALITY_MCC: Final = Metric(
    "ml.quality.mcc",
    "gauge",
    "1",
    "Matthews' correlation of labels and predictions; Gorodkin's for more than two classes.",
)

ML_QUALITY_ECE: Final = Metric(
    "ml.quality.ece", "gauge", "1", "Expected calibration error over 15 bins, less what the noise of few rows adds."
)

ML_QUALITY_MAPE: Final = Metric(
    "ml.quality.mape", "gauge", "1", "Mean absolute error relative to the label, as a share."
)

ML_QUALITY_HAMMING_LOSS: Final = Metric(
    "ml.quality.hamming_loss", "gauge", "1", "Share of a multilabel classifier's decisions that are wrong."
)

ML_QUALITY_PRECISION_MICRO: Final = Metric(
    "ml.quality.precision_micro", "gauge", "1", "Precision over all decisions of a multilabel classifier."
)

ML_QUALITY_RECALL_MICRO: Final = Metric(
    "ml.quality.recall_micro", "gauge", "1", "Recall over all decisions of a multilabel classifier."
)

ML_QUALITY_F1_MICRO: Final = Metric(
    "ml.quality.f1_micro", "gauge", "1", "F1 over all decisions of a multilabel classifier."
)

ML_QUALITY_AVERAGE_PRECISION: Final = Metric(
    "ml.quality.average_precision",
    "gauge",
    "1",
    "Average precision; one-versus-rest macro average for more than two classes.",
)

ML_QUALITY_MSE: Final = Metric("ml.quality.mse", "gauge", "1", "Mean squared error.")

ML_QUALITY_MEDIAN_AE: Final = Metric("ml.quality.median_ae", "gauge", "1", "Median absolute error.")

ML_QUALITY_BIAS: Final = Metric("ml.quality.bias", "gauge", "1", "Mean of prediction less label.")

ML_QUALITY_CUSTOM: Final = Metric(
    "ml.quality.custom",
    "gauge",
    "1",
    "A performance figure of your own (entry point group mlspan_metric), named by ml.quality.metric.",
)

ML_QUALITY_LABELS: Final = Metric(
    "ml.quality.labels", "gauge", "{row}", "Labelled rows that the quality window rests on."
)

ML_QUALITY_COVERAGE: Final = Metric(
    "ml.quality.coverage", "gauge", "1", "Labelled share of the quality window's captured rows."
)

ML_QUALITY_OUTCOMES: Final = Metric(
    "ml.quality.outcomes", "counter", "{row}", "Labelled predictions, by whether they were right."
)

ML_FEEDBACK_LABELS: Final = Metric(
    "ml.feedback.labels",
    "counter",
    "{label}",
    "Labels received, by state: joined, waiting, duplicate, conflicting, expired, not_captured, invalid.",
)

ML_WEIGHT_UNKNOWN_RATIO: Final = Metric(
    "ml.weight.unknown.ratio", "gauge", "1", "Share of model spans that carry no sampling weight and are counted once."
)

ML_DRIFT_P_ADJUSTED: Final = Metric(
    "ml.drift.p_adjusted",
    "gauge",
    "1",
    "p-value of the feature in the last closed window, corrected over all features and for dependent rows.",
)

ML_DRIFT_EFFECT: Final = Metric(
    "ml.drift.effect",
    "gauge",
    "1",
    "How far the feature moved in the last closed window, less what chance alone would move it.",
)

ML_DRIFT_EFFECT_THRESHOLD: Final = Metric(
    "ml.drift.effect_threshold", "gauge", "1", "The smallest effect that counts as drift."
)

ML_DRIFT_DRIFTED: Final = Metric(
    "ml.drift.drifted",
    "gauge",
    "1",
    "1 where the feature drifted in the last closed window (significant and large enough), else 0.",
)

ML_DRIFT_MULTIVARIATE_STATISTIC: Final = Metric(
    "ml.drift.multivariate.statistic",
    "gauge",
    "1",
    "Mean squared Mahalanobis distance of the last closed window's rows over that of the reference's: 1 without drift.",
)

ML_DRIFT_MULTIVARIATE_P_VALUE: Final = Metric(
    "ml.drift.multivariate.p_value", "gauge", "1", "p-value of all features together in the last closed window."
)

ML_DRIFT_MULTIVARIATE_EFFECT: Final = Metric(
    "ml.drift.multivariate.effect",
    "gauge",
    "1",
    "How far all features together moved in the last closed window, by the test that speaks most clearly.",
)

ML_DRIFT_MULTIVARIATE_DRIFTED: Final = Metric(
    "ml.drift.multivariate.drifted",
    "gauge",
    "1",
    "1 where all features together drifted in the last closed window (significant and large enough), else 0.",
)

ML_QUALITY_LOW: Final = Metric(
    "ml.quality.low", "gauge", "1", "Lower end of the 95 % band of a realised or estimated figure."
)

ML_QUALITY_HIGH: Final = Metric("ml.quality.high", "gauge", "1", "Upper end of that band.")

ML_QUALITY_DELAY: Final = Metric(
    "ml.quality.delay", "gauge", "s", "How long labels took from prediction to arrival, by quantile."
)

ML_SEGMENT_PERFORMANCE: Final = Metric(
    "ml.segment.performance", "gauge", "1", "A performance figure of one segment's rows."
)

ML_SEGMENT_ROWS: Final = Metric("ml.segment.rows", "gauge", "{row}", "Rows of the segment behind these figures.")

ML_SEGMENT_FAIRNESS: Final = Metric(
    "ml.segment.fairness", "gauge", "1", "A gap in how groups of people are treated, over the newest labelled rows."
)

ML_VERSION_DIFFERENCE: Final = Metric(
    "ml.version.difference",
    "gauge",
    "1",
    "A figure of this version less that of the baseline version, over the same time.",
)

ML_INCIDENT_OPEN: Final = Metric("ml.incident.open", "updowncounter", "{incident}", "Incidents that are open.")

ML_INCIDENT_COUNT: Final = Metric("ml.incident.count", "counter", "{incident}", "Incidents that were opened.")

DURATION_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Recommended bucket boundaries of ml.operation.duration, in seconds."""
