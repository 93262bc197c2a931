"""What a hook adds to a predict, against a bare SDK span with six attributes, in one process.

Each round times the same call alone, inside a bare span, and under the hook, in turn, so that a change of the machine's
speed meets all three. Time is the thread's processor time; polars may work in a thread of its own that the caller waits
for: its time is the process's. The first table calls an estimator that answers at once, so that span and hook alone are
compared, and one quick model; a row gives the best of all rounds of each, since what disturbs a measurement only ever
adds to it. In a loop of calls of many rows the budget of bytes leaves each a few of them; "after a pause" is what a
call costs that may carry as many as any. The second table calls models of several parts, which take up to milliseconds:
span and hook cost more there than in a loop of spans, since the model's own work takes the processor's caches from
them. A row gives the median of all rounds of the differences between medians. Run: ``python benchmarks/bench_hook.py``.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Final, Self

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import pandas as pd
import polars as pl
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from rich.console import Console
from rich.table import Table
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlspan import runtime
from mlspan.budget import ByteBudget
from mlspan.hooks.sklearn import SklearnInstrumentor

ROUNDS: Final = 15
BLOCKS: Final = 10
WARM_UP: Final = 10
CALLS: Final = 40
ARRAY: Final = "array"
FRAME: Final = "DataFrame"
MIXED: Final = "DataFrame of numbers, counts and texts"
POLARS: Final = "polars DataFrame"
MISSING: Final = "polars DataFrame with missing values"
ARROW: Final = "pyarrow Table"
ARROW_MISSING: Final = "pyarrow Table with missing values"
SIX: Final[dict[str, str | int | float]] = {"a": "predict", "b": "fraud-model", "c": "7", "d": 1, "e": 30, "f": 0.5}


def _seconds_a_call(clock: Callable[[], int], calls: int, *timed: Callable[[], Any]) -> list[float]:
    """The best block of each, blocks in turn; the first ones warm up: Python adapts to classes that were patched."""
    best = [float("inf")] * len(timed)
    for block in range(BLOCKS + 2):
        for which, call in enumerate(timed):
            start = clock()
            for _ in range(calls):
                call()
            seconds = (clock() - start) / calls * 1e-9
            if block >= 2:
                best[which] = min(best[which], seconds)
    return best


class AtOnce(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier that has its answer ready."""

    def fit(self, X: Any, y: Any) -> Self:  # noqa: ARG002  # scikit-learn's signature
        """Know the classes."""
        self.classes_ = np.unique(y)
        self.answer_ = np.array([[0.25, 0.75]])
        return self

    def predict_proba(self, X: Any) -> Any:  # noqa: ARG002
        """The answer."""
        return self.answer_


def _frame(values: Any, is_mixed: bool) -> pd.DataFrame:
    """Columns with names; mixed: of ten, seven hold numbers, two counts, one texts."""
    found: dict[str, Any] = {}
    for j, column in enumerate(values.T):
        kind = j % 10 if is_mixed else 0
        texts = pd.Series([f"kind {int(value) % 5}" for value in column * 10]) if kind == 9 else None
        found[f"feature_{j}"] = texts if texts is not None else (column * 10).astype(int) if kind > 6 else column
    return pd.DataFrame(found) if is_mixed else pd.DataFrame(values, columns=list(found))


def _calls(
    model: Any, rows: int, columns: int, what: str, provider: TracerProvider
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The same call of the model, once it is fitted: by itself, and inside a bare span."""
    rng = np.random.default_rng(0)
    fit: Any = rng.standard_normal((500, columns))
    x: Any = rng.standard_normal((rows, columns))
    if what != ARRAY:
        fit, x = (_frame(values, what == MIXED) for values in (fit, x))
    model.fit(fit, rng.integers(0, 2, 500))
    if what in (POLARS, MISSING, ARROW, ARROW_MISSING):
        x = pl.from_pandas(x)
    if what in (MISSING, ARROW_MISSING):
        x = x.with_columns(pl.when(pl.int_range(pl.len()) > 0).then(pl.all()))
    if what in (ARROW, ARROW_MISSING):
        x = x.to_arrow()
    if isinstance(model, AtOnce):
        model.answer_ = np.tile(model.answer_, (rows, 1))
    tracer = provider.get_tracer("bare")

    def predict() -> None:
        model.predict_proba(x)

    def inside() -> None:
        with tracer.start_as_current_span("predict fraud-model", attributes=SIX):
            model.predict_proba(x)

    return predict, inside


def _case(name: str, model: Any, rows: int, columns: int, what: str, table: Table, provider: TracerProvider) -> None:
    predict, inside = _calls(model, rows, columns, what, provider)
    calls = 100 if rows == 1 else 10
    clock = time.process_time_ns if what in (POLARS, MISSING) else time.thread_time_ns
    hooks = SklearnInstrumentor()
    best = [float("inf")] * 4
    for _ in range(ROUNDS):
        gc.collect()
        both = _seconds_a_call(clock, calls, predict, inside)
        hooks.instrument(tracer_provider=provider)
        hooked = rested = _seconds_a_call(clock, calls, predict)[0]
        if rows > 1:
            running = runtime.current()
            assert running is not None
            running.emitter.budget = ByteBudget(limit_bytes=1 << 40)
            rested = _seconds_a_call(clock, calls, predict)[0]
        hooks.uninstrument()
        best = list(map(min, best, (*both, hooked, rested)))
    plain, bare, added = best[0], best[1] - best[0], best[2] - best[0]
    allowed = 1.5 * bare + (0 if rows == 1 else 300e-6)
    table.add_row(
        name,
        *(f"{value * 1e6:.1f}" for value in (plain, bare, added)),
        f"{added / bare:.2f}",
        f"{allowed * 1e6:.0f}",
        "yes" if added <= allowed else "NO",
        f"{(best[3] - best[0]) * 1e6:.0f}" if rows > 1 else "",
    )


def _median_of(call: Callable[[], Any]) -> float:
    """Seconds a call, after a few that warm up."""
    taken = []
    for at in range(WARM_UP + CALLS):
        start = time.thread_time_ns()
        call()
        if at >= WARM_UP:
            taken.append(time.thread_time_ns() - start)
    return statistics.median(taken) * 1e-9


def _of_parts(name: str, model: Any, what: str, table: Table, provider: TracerProvider) -> None:
    """One row through a model of several parts."""
    predict, inside = _calls(model, 1, 30, what, provider)
    hooks = SklearnInstrumentor()
    rounds = []
    for _ in range(ROUNDS):
        gc.collect()
        before, bare = _median_of(predict), _median_of(inside)
        hooks.instrument(tracer_provider=provider)
        hooked = _median_of(predict)
        hooks.uninstrument()
        alone = (before + _median_of(predict)) / 2
        rounds.append((alone, bare - alone, hooked - alone))
    alone, bare, added = (statistics.median(values) for values in zip(*rounds, strict=True))
    table.add_row(
        f"{name}, 1 x 30 {what}",
        *(f"{value * 1e6:.0f}" for value in (alone, bare, added)),
        f"{added / bare:.2f}",
        f"{added / alone * 100:.1f} %",
    )


def _models_of_parts() -> list[tuple[str, Any, str]]:
    mixed = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
        (StandardScaler(), make_column_selector(dtype_include="number")),
    )
    return [
        ("HistGradientBoosting, 20 iterations", HistGradientBoostingClassifier(max_iter=20), ARRAY),
        ("scaler and LogisticRegression", make_pipeline(StandardScaler(), LogisticRegression()), ARRAY),
        ("column transformer and LogisticRegression", make_pipeline(mixed, LogisticRegression()), MIXED),
        ("RandomForest, 100 trees", RandomForestClassifier(), ARRAY),
    ]


def main() -> None:
    """Print the table."""
    provider = TracerProvider()
    # A processor that drops: what is measured is the caller's thread, not the export.
    provider.add_span_processor(SpanProcessor())
    table = Table(
        *("call", "alone µs", "span adds µs", "hook adds µs", "ratio", "allowed µs", "met", "after a pause µs"),
        title="what a hook adds to predict_proba, against a bare span with six attributes",
    )
    cases = (
        *((AtOnce, 1, 30, what) for what in (ARRAY, FRAME, MIXED)),
        *((LogisticRegression, 1, 30, what) for what in (ARRAY, FRAME)),
        *((LogisticRegression, 10_000, columns, ARRAY) for columns in (10, 100)),
        (LogisticRegression, 10_000, 100, FRAME),
        *((AtOnce, 10_000, 100, what) for what in (MIXED, POLARS, MISSING, ARROW, ARROW_MISSING)),
    )
    for kind, rows, columns, what in cases:
        _case(f"{kind.__name__}, {rows:,} x {columns} {what}", kind(), rows, columns, what, table, provider)
    parts = Table(
        *("call", "alone µs", "span adds µs", "hook adds µs", "ratio", "of the call"), title="models of several parts"
    )
    for name, model, what in _models_of_parts():
        _of_parts(name, model, what, parts, provider)
    for printed in (table, parts):
        Console(width=130).print(printed)


if __name__ == "__main__":
    main()
