"""Score a table in chunks, as a nightly job does, and write predictions with the ids that labels can name later.

opentelemetry-instrument python examples/batch.py scored.csv
mlspan labels outcomes.csv        # columns prediction_id, label; when the truth is known
"""

import argparse
import csv
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor

import mlspan

CHUNK = 100


def main() -> None:
    """Fit on the first half, score the second half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where predictions go: columns prediction_id, prediction, truth")
    out: Path = parser.parse_args().out
    data = load_diabetes(as_frame=True)
    half = len(data.data) // 2
    model = HistGradientBoostingRegressor(random_state=0).fit(data.data[:half], data.target[:half])
    mlspan.instrument_model(model, name="progression", version="1")
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prediction_id", "prediction", "truth"])
        for start in range(half, len(data.data), CHUNK):
            rows = data.data[start : start + CHUNK]
            with mlspan.prediction_context() as context:
                predicted = model.predict(rows)
            truth = data.target[start : start + CHUNK]
            # Calls that are not traced (not instrumented, or sampled out) have no ids that a label could name.
            ids = context.ids or [""] * len(rows)
            writer.writerows(zip(ids, predicted.tolist(), truth.tolist(), strict=True))


if __name__ == "__main__":
    main()
