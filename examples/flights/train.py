"""Train the model on January to March.

Run under ``opentelemetry-instrument`` with OTEL_INSTRUMENTATION_ML_REFERENCE_DIR set, the fit leaves a reference
profile with the cross-validated performance beside the model: no line here knows of it.
"""

import argparse
from pathlib import Path

import joblib
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score, make_scorer, precision_score, recall_score
from sklearn.model_selection import TimeSeriesSplit, cross_validate
from sklearn.pipeline import make_pipeline

from examples.flights import data
from examples.flights.encoder import CodesOfTexts

OF_LATE = {"precision": precision_score, "recall": recall_score, "f1": f1_score}


def main() -> None:
    """Fit, print the cross-validated performance, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where the model goes, e.g. model.joblib")
    out: Path = parser.parse_args().out
    table = data.training()
    features, label = table[list(data.FEATURES)], table["label"].astype(str)
    model = make_pipeline(
        CodesOfTexts(("carrier", "origin", "dest")),
        # Balanced: a flight in five is late, and nobody asks for a model that never says so.
        HistGradientBoostingClassifier(max_iter=50, class_weight="balanced", random_state=0),
    )
    scoring = {name: make_scorer(score, pos_label="late") for name, score in OF_LATE.items()}
    scoring |= {name: name for name in ("accuracy", "roc_auc", "neg_log_loss")}
    # Folds in order of time: shuffled ones would promise what no later month can keep.
    scores = cross_validate(model, features, label, cv=TimeSeriesSplit(3), scoring=scoring)
    for name in scoring:
        print(f"{name:12s} {scores[f'test_{name}'].mean():+.3f} ± {scores[f'test_{name}'].std():.3f}")
    model.fit(features, label)
    joblib.dump(model, out)


if __name__ == "__main__":
    main()
