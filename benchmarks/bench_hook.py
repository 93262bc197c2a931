"""What a hook adds to a predict, against a bare SDK span with six attributes, in one process.

Each round times the same call without hooks, with hooks, and a bare span, one after the other, so that a change of the
machine's speed meets all three; a row gives medians over rounds. Run: ``python benchmarks/bench_hook.py``.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from mlspan.hooks.sklearn import SklearnInstrumentor

ROUNDS: Final = 25
SIX: Final = {"a": "predict", "b": "fraud-model", "c": "7", "d": 1, "e": 30, "f": 0.5}


def _seconds_a_call(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _case(name: str, rows: int, columns: int, frame: bool, table: Table, provider: TracerProvider) -> None:
    rng = np.random.default_rng(0)
    fit = rng.standard_normal((500, columns))
    x: Any = rng.standard_normal((rows, columns))
    if frame:
        fit, x = (pd.DataFrame(a, columns=[f"feature_{j}" for j in range(columns)]) for a in (fit, x))
    model = LogisticRegression().fit(fit, rng.integers(0, 2, 500))
    tracer = provider.get_tracer("bare")

    def bare() -> None:
        with tracer.start_as_current_span("predict fraud-model", attributes=SIX):
            pass

    calls = 200 if rows == 1 else 20
    hooks = SklearnInstrumentor()
    spans, added = [], []
    for _ in range(ROUNDS):
        gc.collect()
        plain = _seconds_a_call(lambda: model.predict_proba(x), calls)
        hooks.instrument(tracer_provider=provider)
        model.predict_proba(x)
        hooked = _seconds_a_call(lambda: model.predict_proba(x), calls)
        hooks.uninstrument()
        plain = min(plain, _seconds_a_call(lambda: model.predict_proba(x), calls))
        spans.append(_seconds_a_call(bare, 200))
        added.append(hooked - plain)
    span, more = statistics.median(spans), statistics.median(added)
    ratio = statistics.median(a / s for a, s in zip(added, spans, strict=True))
    limit = "1.5 x" if rows == 1 else "1.5 x + 300 µs"
    met = ratio <= 1.5 if rows == 1 else more <= 1.5 * span + 300e-6
    table.add_row(name, f"{span * 1e6:.1f}", f"{more * 1e6:.1f}", f"{ratio:.2f}", limit, "yes" if met else "NO")


def main() -> None:
    """Print the table."""
    provider = TracerProvider()
    # A processor that drops: what is measured is the caller's thread, not the export.
    provider.add_span_processor(SpanProcessor())
    table = Table("call", "bare span µs", "hook adds µs", "ratio", "allowed", "met", title="what a hook adds")
    for rows, columns, frame in (
        (1, 30, False),
        (1, 30, True),
        (10_000, 10, False),
        (10_000, 100, False),
        (10_000, 100, True),
    ):
        kind = "DataFrame" if frame else "array"
        _case(f"predict_proba, {rows:,} x {columns} {kind}", rows, columns, frame, table, provider)
    Console().print(table)


if __name__ == "__main__":
    main()
