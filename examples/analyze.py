"""Judge months of a model's predictions, two weeks at a time, without a service.

python -m examples.analyze out.json

A model learns from New York's flights of January 2013 whether a flight will arrive late; its predictions of February
are the reference, and those of the next months are judged against them. What a scheduled job does with files is
`mlspan analyze`; this is the same in Python.
"""

import argparse
from pathlib import Path

from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.flights.data import flights
from mlspan_processor import analyze

NUMBERS = ["distance", "hour"]
CATEGORIES = ["carrier", "origin"]
FEATURES = NUMBERS + CATEGORIES


def main() -> None:
    """Fit, score, judge, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where the whole result goes, as JSON")
    parser.add_argument("--months", type=int, default=4, help="of the year (default: %(default)s)")
    options = parser.parse_args()
    frame = flights()
    frame = frame[frame["month"] <= options.months]
    training = frame[(frame["month"] == 1) & frame["label"].notna()]
    model = make_pipeline(
        make_column_transformer(
            (StandardScaler(), NUMBERS), (OneHotEncoder(handle_unknown="ignore"), CATEGORIES), sparse_threshold=0
        ),
        LogisticRegression(max_iter=200),
    ).fit(training[FEATURES], training["label"])
    scored = frame.assign(p_late=model.predict_proba(frame[FEATURES])[:, 1])
    result = analyze(
        reference=scored[scored["month"] == 2],
        current=scored[scored["month"] > 2],
        probability="late=p_late",
        label="label",
        time="departure",
        features=FEATURES,
        segment="origin",
        every="2w",
    )
    for window in result.windows:
        accuracy = window.metrics["accuracy"]
        told = "; ".join(alert.message for alert in window.alerts) or "quiet"
        print(f"{window.start}: accuracy {accuracy.realised:.3f}, estimated {accuracy.estimated:.3f}: {told}")
    options.out.write_text(result.to_json(), "utf-8")
    print(f"{len(result.alerted)} of {len(result.windows)} windows raised an alert, {len(result.incidents)} incidents")


if __name__ == "__main__":
    main()
