"""Train the model on January to March.

Run under ``opentelemetry-instrument`` with OTEL_INSTRUMENTATION_ML_REFERENCE_DIR set, the fit leaves a reference
profile with the cross-validated performance beside the model: no line here knows of it.
"""

import argparse
from pathlib import Path

import joblib
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import TimeSeriesSplit, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from examples.flights import data


def main() -> None:
    """Fit, print the cross-validated performance, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where the model goes, e.g. model.joblib")
    out: Path = parser.parse_args().out
    table = data.training()
    features, label = table[list(data.FEATURES)], table["label"].astype(str)
    texts = ["carrier", "origin", "dest"]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=200)
    model = make_pipeline(
        make_column_transformer((encoder, texts), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=50, learning_rate=0.1, random_state=0),
    )
    # Folds in order of time: shuffled ones would promise what no later month can keep.
    scoring = ["accuracy", "f1_macro", "roc_auc", "neg_log_loss"]
    scores = cross_validate(model, features, label, cv=TimeSeriesSplit(3), scoring=scoring)
    for name in scoring:
        print(f"{name:12s} {scores[f'test_{name}'].mean():+.3f} ± {scores[f'test_{name}'].std():.3f}")
    model.fit(features, label)
    joblib.dump(model, out)


if __name__ == "__main__":
    main()
