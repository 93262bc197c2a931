"""Estimated performance without labels against NannyML's CBPE: accuracy and F1 on nine public data sets.

Each data set is split into training, reference and analysis; four models are trained; windows come in the order of
time (a real shift where there is one) and with made shifts (`estimates/cases.py`). Both estimators see the same
reference and the same windows without labels; the error is that of the realised value. NannyML runs in an environment
of its own, which is made under `.cache/estimates` (2 GB) from `estimates/requirements.txt`, whose packages carry the
data sets.

CBPE and the refit are combined by their errors, not one of them chosen, since a run of this benchmark showed what the
refit finds in one reference to be gone in the next window (randhie, visibility); folds of neighbouring rows were tried
then too, and left again. All else was settled beforehand, on data sets that are not here (adult, mammography, phoneme,
California housing, wine quality, abalone, two synthetic ones): the methods, their sizes, the shrinkage, the guards and
the bands' share of distance.
Fixed here: seed 0, sizes of windows, kinds and strengths of shifts.

Goals: geometric mean of the ratios of mean absolute errors, ours to NannyML's, over data sets and both figures at
most 0.85, none above 1.05; 95 % bands cover 90 to 98 %. Exits with 1 where one is missed. Beside them: the constant
baseline (the reference's realised value) and the floor: the mean absolute difference between the realised value and
what is expected under our own probabilities if they were true, from draws, below which no estimate gets except by
luck.
Run: ``python benchmarks/bench_estimates.py [--data NAME …] [--seed N]``.
"""

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.estimates.cases import Case, Data, cases_of
from mlspan_processor.estimate import METRICS, Estimator
from mlspan_processor.estimate.base import rows_of, usable
from mlspan_processor.estimate.expected import Figures

HERE: Final = Path(__file__).resolve().parent / "estimates"
CACHE: Final = Path(__file__).resolve().parents[1] / ".cache" / "estimates"
NAMES: Final = (
    "flights", "visibility", "employment", "randhie", "fair", "bananas", "phishing", "segments", "digits",
)  # fmt: skip
FIGURES: Final = ("accuracy", "f1")
GOAL: Final = 0.85
WORST: Final = 1.05
COVER: Final = (0.90, 0.98)


def main() -> int:
    """Print the tables; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=list(NAMES), choices=NAMES, help="data sets (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of splits, windows and models (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="data sets at a time (default: %(default)s)")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    peer = _environment()
    frames: dict[str, pd.DataFrame] = {}
    with ProcessPoolExecutor(asked.jobs) as pool:
        ahead = [pool.submit(_results, name, asked.seed, peer) for name in asked.data]
        for one in track(as_completed(ahead), "data sets", len(ahead), console=Console(stderr=True)):
            frame = one.result()
            frames[frame["data"].iloc[0]] = frame
    results: pd.DataFrame = pd.concat([frames[name] for name in asked.data], ignore_index=True)
    for column in ("data", "model", "kind", "method"):
        _errors(results, column)
    _coverage(results)
    return _verdict(results)


def _environment() -> Path:
    """The peer's Python, with the data sets written out."""
    python = CACHE / "venv" / "bin" / "python"
    stamp = CACHE / "installed.txt"
    wanted = (HERE / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(CACHE / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(HERE / "requirements.txt")], check=True)
        stamp.write_text(wanted)
    data = CACHE / "data"
    if not all((data / f"{name}.npz").exists() for name in NAMES):
        data.mkdir(exist_ok=True)
        _peer(python, "data", data)
    return python


def _peer(python: Path, *arguments: Any) -> None:
    # The peer reports its use to its maker unless told not to.
    quiet = {**os.environ, "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run([str(python), str(HERE / "peer.py"), *map(str, arguments)], check=True, env=quiet)


def _results(name: str, seed: int, peer: Path) -> pd.DataFrame:
    """A row for each window of a data set."""
    warnings.simplefilter("ignore")
    rows = [row for case in cases_of(_read(name), seed) for row in _judge(case, peer)]
    frame = pd.DataFrame(rows)
    frame.to_csv(CACHE / f"results-{name}.csv", index=False)
    return frame


def _read(name: str) -> Data:
    with np.load(CACHE / "data" / f"{name}.npz") as arrays:
        labels = arrays["labels"]
        return Data(
            name=name,
            values=arrays["values"],
            categorical=arrays["categorical"],
            labels=labels,
            n_classes=int(labels.max()) + 1,
            ordered=bool(arrays["ordered"]),
            source=str(arrays["source"]),
        )


def _judge(case: Case, peer: Path) -> Iterable[dict[str, Any]]:
    """A row for each window."""
    theirs = _their_estimates(case, peer)
    estimator = Estimator.fit(case.reference)
    reference = _realised(case.reference)
    for i, (kind, window) in enumerate(zip(case.kinds, case.windows, strict=True)):
        truth = _realised(window)
        ours = estimator.estimate(window)
        rows = rows_of(window, usable(window)[0])
        spread = np.abs(_noise(rows, estimator, window)).mean(axis=0)
        row: dict[str, Any] = {"data": case.data, "model": case.model, "kind": kind, "method": ours["accuracy"].method}
        for j, name in enumerate(METRICS[window.task]):
            one = ours[name]
            if one.value is None or one.low is None or one.high is None or not np.isfinite(truth[j]):
                continue
            row[f"ours.{name}"] = abs(one.value - truth[j])
            row[f"held.{name}"] = one.low <= truth[j] <= one.high
            row[f"width.{name}"] = one.high - one.low
            if name in FIGURES:
                row[f"nannyml.{name}"] = abs(theirs[i, FIGURES.index(name)] - truth[j])
                row[f"constant.{name}"] = abs(reference[j] - truth[j])
                row[f"floor.{name}"] = spread[j]
        yield row


def _realised(sample: Any) -> Any:
    used = usable(sample)[0]
    return Figures(rows_of(sample, used)).of_labels(sample.labels[used].astype(np.int64))


def _noise(rows: Any, estimator: Estimator, window: Any) -> Any:
    """(n, n_metrics) differences of drawn realised values from their mean, if our probabilities were true."""
    p = estimator.probabilities(window)
    drawn = Figures(rows).draws(p[np.isfinite(p).all(axis=1)], 1, 50)
    return drawn - np.nanmean(drawn, axis=0)


def _their_estimates(case: Case, peer: Path) -> Any:
    source, target = CACHE / f"{case.data}.npz", CACHE / f"{case.data}.npy"
    np.savez(
        source,
        scores=np.asarray(case.reference.scores),
        predictions=case.reference.predictions,
        labels=case.reference.labels,
        window_scores=np.concatenate([one.scores for one in case.windows if one.scores is not None]),
        window_predictions=np.concatenate([one.predictions for one in case.windows]),
        sizes=[len(one) for one in case.windows],
    )
    _peer(peer, "cbpe", source, target)
    return np.load(target)


def _geometric(ratios: Any) -> float:
    return float(np.exp(np.mean(np.log(ratios))))


def _errors(results: pd.DataFrame, column: str) -> None:
    table = Table(title=f"Mean absolute error x 1000, by {column}")
    heads = [f"{figure} {who}" for figure in FIGURES for who in ("ours", "NannyML", "constant", "floor", "ratio")]
    for head in (column, "windows", *heads):
        table.add_column(head, justify="left" if head == column else "right")
    for name, part in results.groupby(column, sort=False):
        cells = []
        for figure in FIGURES:
            means = [1000 * part[f"{who}.{figure}"].mean() for who in ("ours", "nannyml", "constant", "floor")]
            cells += [*(f"{mean:.1f}" for mean in means), f"{means[0] / means[1]:.3f}"]
        table.add_row(str(name), str(len(part)), *cells)
    Console(width=140).print(table)


def _coverage(results: pd.DataFrame) -> None:
    table = Table(title="Share of realised values inside the 95 % band (width)")
    names = [one.removeprefix("held.") for one in results.columns if one.startswith("held.")]
    for head in ("data", *names):
        table.add_column(head, justify="left" if head == "data" else "right")
    for name, part in [*results.groupby("data", sort=False), ("all", results)]:
        cells = [f"{part[f'held.{one}'].astype(float).mean():.3f} ({part[f'width.{one}'].mean():.3f})" for one in names]
        table.add_row(str(name), *cells)
    Console(width=140).print(table)


def _verdict(results: pd.DataFrame) -> int:
    means = results.groupby("data", sort=False).mean(numeric_only=True)
    ratios = np.array([means[f"ours.{one}"] / means[f"nannyml.{one}"] for one in FIGURES])
    overall, worst = _geometric(ratios), float(ratios.max())
    if ratios.shape[1] > 1:
        # One data set may carry the mean: NannyML leaves digits' classes with an AUROC above .999 uncalibrated.
        best = int(np.log(ratios).sum(axis=0).argmin())
        print(f"       without {means.index[best]}, the best: {_geometric(np.delete(ratios, best, axis=1)):.3f}")
    held = float(np.mean([results[f"held.{one}"].astype(float).mean() for one in FIGURES]))
    goals = {
        f"geometric mean of ratios {overall:.3f}, at most {GOAL}": overall <= GOAL,
        f"worst ratio {worst:.3f}, at most {WORST}": worst <= WORST,
        f"bands of accuracy and F1 cover {held:.3f}, from {COVER[0]} to {COVER[1]}": COVER[0] <= held <= COVER[1],
    }
    for goal, met in goals.items():
        print("met   " if met else "MISSED", goal)
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
