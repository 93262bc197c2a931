"""Memory over 5 million rows: 10 models of 50 features through decode, windows, drift, quality and enrichment.

Requests of multi-row spans go to the connector in this process; event time runs 20 seconds a request, so that panes
fill, age and merge as they do in days of service. Resident memory is printed after every twentieth of the rows, with
what the allocator holds free given back, so that it shows what is in use. Warm-up ends when both bounds are reached:
1,000,000 predictions that wait for labels, and 360 panes a model. Flat means: the mean of the last third of what
follows is within 5 % of the mean of its first third; the index of waiting predictions merges by doubling, which alone
makes it breathe by some per cent. Run: ``python benchmarks/bench_memory.py [--rows N]``.
"""

import argparse
import ctypes
import gc
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import streams
from mlspan_processor.connector import MlspanConnector
from mlspan_processor.records import Chunk, RetryableError, Signal

MODELS: Final = 10
FEATURES: Final = 50
ROWS_A_SPAN: Final = 10
SPANS_A_REQUEST: Final = 50
STEPS: Final = 20
NS_BETWEEN_REQUESTS: Final = 20_000_000_000
MIB: Final = 1 << 20


class _Forget:
    """A consumer that takes everything and keeps nothing."""

    def consume(self, chunk: Chunk) -> None:
        """Forget the chunk."""


def _resident_mib() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows in all (default: %(default)s)")
    rows: int = parser.parse_args().rows
    a_request = ROWS_A_SPAN * SPANS_A_REQUEST
    a_step = max(MODELS, rows // STEPS // a_request)
    rng = np.random.default_rng(0)
    at_ns = time.time_ns() - STEPS * a_step * NS_BETWEEN_REQUESTS
    connector = MlspanConnector(MlspanConnector.Config(), "mlspan", time.time_ns)
    connector.outputs = {signal: _Forget() for signal in Signal}
    connector.start()
    table = Table(
        "rows", "resident MiB", "waiting for labels", "panes a model", title="memory, 10 models x 50 features"
    )
    resident, warm = [], 0
    for step in track(range(STEPS), description="rows"):
        for i in range(a_step):
            model = f"model-{(step * a_step + i) % MODELS}"
            at_ns += NS_BETWEEN_REQUESTS
            data = streams.model_request(rng, SPANS_A_REQUEST, FEATURES, ROWS_A_SPAN, model=model, at_ns=at_ns)
            while True:
                try:
                    connector.consume(Chunk(Signal.TRACES, data, SPANS_A_REQUEST))
                    break
                except RetryableError:
                    time.sleep(0.02)
        status, settings = connector.status(), MlspanConnector.Config()
        pending, panes = status["labels"]["pending_predictions"], min(model["panes"] for model in status["models"])
        warm += pending < 0.9 * settings.labels.capacity or panes < 0.9 * settings.window.max_panes
        resident.append(_resident_mib())
        table.add_row(f"{(step + 1) * a_step * a_request:,}", f"{resident[-1]:.0f}", f"{pending:,}", f"{panes}")
    connector.shutdown(30)
    console = Console()
    console.print(table)
    after = resident[warm:]
    third = max(1, len(after) // 3)
    first, last = statistics.mean(after[:third]), statistics.mean(after[-third:])
    verdict = "flat" if last <= 1.05 * first else "NOT FLAT"
    console.print(
        f"after warm-up: first third {first:.0f} MiB, last third {last:.0f} MiB,"
        f" highest {max(after):.0f} MiB: {verdict}"
    )


if __name__ == "__main__":
    main()
