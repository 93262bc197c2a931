"""What a hook adds to a predict, against a bare SDK span with six attributes, in one process.

Each round times the same call alone, inside a bare span, and under the hook, in turn, so that a change of the machine's
speed meets all three; a row gives medians over rounds. The bare span is timed where it would stand, around the call: a
span that follows other work costs more than one in a loop of spans, whose code and data stay in the
processor's caches. That smaller figure is printed too. Run: ``python benchmarks/bench_hook.py``.
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

ROUNDS: Final = 15
SIX: Final[dict[str, str | int | float]] = {"a": "predict", "b": "fraud-model", "c": "7", "d": 1, "e": 30, "f": 0.5}


def _seconds_a_call(call: Callable[[], Any], calls: int) -> float:
    """The best of four blocks, after one to warm up: what disturbs a block only ever adds to it."""
    blocks = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        blocks.append((time.perf_counter() - start) / calls)
    return min(blocks[1:])


def _case(name: str, rows: int, columns: int, frame: bool, table: Table, provider: TracerProvider) -> None:
    rng = np.random.default_rng(0)
    fit: Any = rng.standard_normal((500, columns))
    x: Any = rng.standard_normal((rows, columns))
    if frame:
        fit, x = (pd.DataFrame(a, columns=[f"feature_{j}" for j in range(columns)]) for a in (fit, x))
    model = LogisticRegression().fit(fit, rng.integers(0, 2, 500))
    tracer = provider.get_tracer("bare")

    def alone() -> None:
        with tracer.start_as_current_span("predict fraud-model", attributes=SIX):
            pass

    def predict() -> None:
        model.predict_proba(x)

    def inside() -> None:
        with tracer.start_as_current_span("predict fraud-model", attributes=SIX):
            model.predict_proba(x)

    calls = 100 if rows == 1 else 10
    hooks = SklearnInstrumentor()
    found = []
    for _ in range(ROUNDS):
        gc.collect()
        plain, bare = _seconds_a_call(predict, calls), _seconds_a_call(inside, calls)
        hooks.instrument(tracer_provider=provider)
        hooked = _seconds_a_call(predict, calls)
        hooks.uninstrument()
        found.append((_seconds_a_call(alone, calls), bare - plain, hooked - plain, (hooked - plain) / (bare - plain)))
    span, bare, added, _ = (statistics.median(column) for column in zip(*found, strict=True))
    # For one row the ratio is what counts; a large call's bare span drowns in the call's own noise.
    bare = bare if rows == 1 else max(bare, span)
    allowed = 1.5 * bare + (0 if rows == 1 else 300e-6)
    table.add_row(
        name,
        *(f"{value * 1e6:.1f}" for value in (span, bare, added)),
        f"{added / bare:.2f}",
        f"{allowed * 1e6:.0f}",
        "yes" if added <= allowed else "NO",
    )


def main() -> None:
    """Print the table."""
    provider = TracerProvider()
    # A processor that drops: what is measured is the caller's thread, not the export.
    provider.add_span_processor(SpanProcessor())
    table = Table(
        *("call", "span in a loop µs", "span around it µs", "hook adds µs", "ratio", "allowed µs", "met"),
        title="what a hook adds to predict_proba, against a bare span with six attributes",
    )
    for rows, columns, frame in (
        (1, 30, False),
        (1, 30, True),
        (10_000, 10, False),
        (10_000, 100, False),
        (10_000, 100, True),
    ):
        kind = "DataFrame" if frame else "array"
        _case(f"{rows:,} x {columns} {kind}", rows, columns, frame, table, provider)
    Console().print(table)


if __name__ == "__main__":
    main()
