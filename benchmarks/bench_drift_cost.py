"""The drift of 10,000 rows x 50 columns: CPU seconds of Evidently's preset and of ours, on the same data in one run.

Ours: the reference's cells from its raw rows, the window counted into them, all five distances, design effects,
p-values and judgement of every column, and the multivariate detector, which Evidently has none of. Evidently runs in an
environment of its own, made under .cache/evidently at the first run (pip, about a minute). Its choice of methods at
this size, normed Wasserstein for numbers and Jensen-Shannon for categories, is computed by both: the values are
compared, of categories to 1e-9, of numbers to what 50 bins allow. Exits with 1 where a goal is missed.
Run: ``python benchmarks/bench_drift_cost.py``.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table as Text

from mlspan.profile import build_profile, cells_of
from mlspan_processor.drift import Layout, Table
from mlspan_processor.drift.dependence import design_effect
from mlspan_processor.drift.judgement import Judgement, judge
from mlspan_processor.drift.multivariate import Multivariate
from mlspan_processor.sample import Sample

EVIDENTLY: Final = ("evidently==0.7.23", "pandas<3", "numpy<2.4", "pyarrow")
"""It names private parts of pandas that version 3 no longer has."""
ROWS: Final = 10_000
NUMBERS: Final = 40
CATEGORIES: Final = 10
GOAL: Final = 50.0
BINNED: Final = 0.02
"""Standard deviations that a Wasserstein distance may lose to 50 bins."""
_PEER: Final = Path(__file__).with_name("evidently_peer.py")


def _python() -> Path:
    """The Python of an environment that has Evidently."""
    home = Path(__file__).resolve().parents[1] / ".cache" / "evidently"
    python = home / "bin" / "python"
    if not (home / ".installed").exists():
        venv.create(home, with_pip=True, clear=True)
        options = ["--quiet", "--disable-pip-version-check", *EVIDENTLY]
        subprocess.run([python, "-m", "pip", "install", *options], check=True)
        (home / ".installed").touch()
    return python


def _frame(rng: np.random.Generator, shift: float) -> pd.DataFrame:
    """Normal, skewed and rounded numbers, and categories of 3 to 30 values; every other column shifted."""
    columns: dict[str, Any] = {}
    for j in range(NUMBERS):
        values = rng.standard_normal(ROWS) + shift * (j % 2)
        columns[f"n{j}"] = (values, np.exp(values / 2), np.round(values, 1))[j % 3].astype(np.float32)
    for j in range(CATEGORIES):
        k = 3 * (j + 1)
        shares = np.arange(1, k + 1) ** (-0.5 - shift * (j % 2))
        columns[f"c{j}"] = rng.choice([f"v{i:02d}" for i in range(k)], ROWS, p=shares / shares.sum())
    return pd.DataFrame(columns)


def _sample(frame: pd.DataFrame) -> Sample:
    """The frame as cells; this part is not timed, as Evidently is not timed for reading."""
    cells = np.empty((len(frame.columns), len(frame)), np.uint32)
    for j, name in enumerate(frame.columns):
        if j < NUMBERS:
            cells[j] = frame[name].to_numpy(np.float32).view(np.uint32)
        else:
            cells[j] = frame[name].str.slice(1).astype(int).to_numpy() + 1
    nothing = np.full(len(frame), np.nan)
    types = ("numeric",) * NUMBERS + ("categorical",) * CATEGORIES
    return Sample("regression", tuple(frame.columns), types, cells, (), nothing, nothing, None, np.ones(len(frame)))


class _Ours:
    """A reference, and a report of a window."""

    def __init__(self, reference: Sample) -> None:
        rows = np.ascontiguousarray(reference.cells.T)
        self.features = build_profile(rows, reference.names, reference.types).features
        self.layout = Layout(self.features)
        self.dependence = design_effect(self.layout, self._cells(reference))
        self.detector = Multivariate.fit(reference, features=self.features)

    def report(self, window: Sample) -> Judgement:
        """Everything that is said of a window."""
        cells = self._cells(window)
        counts = np.bincount(cells.ravel(), minlength=self.layout.n_cells).astype(np.float64)
        self.detector.judge(window)
        dependence = design_effect(self.layout, cells)
        return judge(Table.of(self.layout, counts), dependence=dependence, reference_dependence=self.dependence)

    def _cells(self, sample: Sample) -> Any:
        cells = np.empty(sample.cells.shape, np.int32)
        for j, feature in enumerate(self.features):
            column = sample.cells[j]
            cells[j] = cells_of(feature, column if feature.codes is not None else column.view(np.float32))
            cells[j] += self.layout.starts[j]
        return cells


def _cpu(call: Any, times: int) -> tuple[float, Any]:
    seconds, result = [], None
    for _ in range(times):
        start = time.process_time()
        result = call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def main() -> int:
    """Print both tables; 1 where a goal is missed."""
    console = Console(width=110)
    rng = np.random.default_rng(0)
    before, after = _frame(rng, 0.0), _frame(rng, 0.2)
    python = _python()
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("reference.parquet", "current.parquet")]
        before.to_parquet(paths[0])
        after.to_parquet(paths[1])
        printed = subprocess.run([python, _PEER, *paths, "3"], check=True, capture_output=True, text=True).stdout
    peer = json.loads(printed.splitlines()[-1])
    theirs = statistics.median(peer["seconds"])
    reference, window = _sample(before), _sample(after)
    building, ours = _cpu(lambda: _Ours(reference), 5)
    reporting, judgement = _cpu(lambda: ours.report(window), 11)
    table = Text("drift of 10,000 x 50", "CPU seconds", "Evidently over it", title="Cost")
    table.add_row(f"Evidently {peer['version']}, DataDriftPreset", f"{theirs:.2f}", "")
    table.add_row("ours, reference built once before", f"{reporting:.4f}", f"{theirs / reporting:.0f}")
    whole = reporting + building
    table.add_row("ours, reference built anew", f"{whole:.4f}", f"{theirs / whole:.0f}")
    console.print(table)
    met = theirs / reporting >= GOAL
    compared = Text("method", "columns", "largest difference", "allowed", title="Values that both compute")
    for method, name, factor, allowed in (
        # scipy's natural logarithm there, bits here.
        ("Jensen-Shannon", "jensen_shannon", math.log(2) ** 0.5, 1e-9),
        ("Wasserstein", "wasserstein", 1.0, BINNED),
    ):
        scores = dict(zip(judgement.names, judgement.drift.scores[name].tolist(), strict=True))
        pairs = [(scores[c] * factor, value) for c, (theirs_by, value) in peer["values"].items() if method in theirs_by]
        largest = max((abs(a - b) for a, b in pairs), default=math.inf)
        met &= largest <= allowed and bool(pairs)
        compared.add_row(f"{method} distance", str(len(pairs)), f"{largest:.2g}", f"{allowed:g}")
    console.print(compared)
    console.print(f"goal: {GOAL:.0f} times; {'met' if met else '[red]missed[/]'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
