"""Memory over 5 million rows: 10 models of 50 features through decode, windows, drift, quality and enrichment.

Requests of multi-row spans go to the connector in this process; the resident memory is printed after every tenth of
the rows. Flat means: the second half of the run adds less than 2 % to the first half's peak.
Run: ``python benchmarks/bench_memory.py [--rows N]``.
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from mlspan_processor.connector import MlspanConnector
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import streams
from mlspan_processor.records import Chunk, RetryableError, Signal

MODELS: Final = 10
FEATURES: Final = 50
ROWS_A_SPAN: Final = 100
SPANS_A_REQUEST: Final = 50
SECONDS_BETWEEN_REQUESTS: Final = 1.0
MIB: Final = 1 << 20


class _Forget:
    """A consumer that takes everything and keeps nothing."""

    def consume(self, chunk: Chunk) -> None:
        """Forget the chunk."""


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows in all (default: %(default)s)")
    rows: int = parser.parse_args().rows
    a_request = ROWS_A_SPAN * SPANS_A_REQUEST
    steps, a_step = 10, max(1, rows // 10 // a_request)
    rng = np.random.default_rng(0)
    # Event time runs a second a request, so that panes fill, age and merge as they do in days of service.
    at_ns = time.time_ns() - int(steps * a_step * SECONDS_BETWEEN_REQUESTS * 1e9)
    connector = MlspanConnector(MlspanConnector.Config(), "mlspan", time.time_ns)
    connector.outputs = {signal: _Forget() for signal in Signal}
    connector.start()
    table = Table("rows", "resident MiB", "panes", title="memory, 10 models x 50 features")
    resident = []
    for step in track(range(steps), description="rows"):
        for i in range(a_step):
            model = f"model-{(step * a_step + i) % MODELS}"
            at_ns += int(SECONDS_BETWEEN_REQUESTS * 1e9)
            data = streams.model_request(rng, SPANS_A_REQUEST, FEATURES, ROWS_A_SPAN, model=model, at_ns=at_ns)
            while True:
                try:
                    connector.consume(Chunk(Signal.TRACES, data, SPANS_A_REQUEST))
                    break
                except RetryableError:
                    time.sleep(0.02)
        connector.status()
        gc.collect()
        resident.append(_resident_mib())
        table.add_row(f"{(step + 1) * a_step * a_request:,}", f"{resident[-1]:.0f}", "")
    connector.shutdown(30)
    first, second = max(resident[: steps // 2]), max(resident[steps // 2 :])
    console = Console()
    console.print(table)
    flat = second <= 1.02 * first
    console.print(
        f"peak of the first half {first:.0f} MiB, of the second {second:.0f} MiB: {'flat' if flat else 'NOT FLAT'}"
    )


if __name__ == "__main__":
    main()
