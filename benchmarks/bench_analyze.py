"""Memory and time of `mlspan analyze` on large files, beside reading them, each in a process of its own.

A Parquet file of 50 features (45 numbers, 5 categories), probability, label, time and id, as reference and as current
file. Rows: what is analysed; then peak resident memory, CPU seconds, the ratio to reading both files once in batches
with pyarrow, which is the least that any analysis has to do. The bound is 2 GB for a million rows. Run:
``python benchmarks/bench_analyze.py [--rows 1000000]``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

LIMIT_MIB: Final = 2_000_000_000 / 2**20
FEATURES: Final = 50
BATCH: Final = 100_000

MEASURED: Final = """
import json, resource, sys
{work}
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_maxrss / 1024, used.ru_utime + used.ru_stime]))
"""
READING: Final = """
from pyarrow import parquet
for path in sys.argv[1:]:
    for batch in parquet.ParquetFile(path).iter_batches(50_000):
        pass
"""
ANALYSIS: Final = """
from mlspan_processor import analyze
result = analyze(
    reference=sys.argv[1], current=sys.argv[2], probability="p", label="y", time="at", id="id", every={every!r}
)
assert len(result.windows) == {windows}, len(result.windows)
"""


def main() -> None:
    """Write the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(_written(Path(folder) / f"{seed}.parquet", rows, seed)) for seed in (0, 1)]
        table = Table("work", "peak MiB", "CPU s", "CPU / reading", "within 2 GB", box=None)
        reading = _measured(READING, paths)
        table.add_row("reading both files", f"{reading[0]:,.0f}", f"{reading[1]:.1f}", "1", "")
        for every, windows in ((None, 1), ("100000rows", rows // 100_000), ("10000rows", rows // 10_000)):
            peak, seconds = _measured(ANALYSIS.format(every=every, windows=max(1, windows)), paths)
            within = "yes" if peak < LIMIT_MIB else "no"
            name = f"analyze, {max(1, windows)} windows"
            table.add_row(name, f"{peak:,.0f}", f"{seconds:.1f}", f"{seconds / reading[1]:.1f}", within)
        console = Console()
        console.print(f"{rows:,} rows x {FEATURES} features in each file")
        console.print(table)


def _measured(work: str, paths: list[str]) -> tuple[float, float]:
    code = MEASURED.format(work=work)
    ran = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    peak, seconds = json.loads(ran.stdout.splitlines()[-1])
    return peak, seconds


def _written(path: Path, rows: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    writer: Any = None
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        x = rng.normal(size=(45, n)).astype(np.float32)
        p = 1 / (1 + np.exp(-x[0] - x[1]))
        columns: dict[str, Any] = {f"x{i}": x[i] for i in range(45)}
        columns |= {f"c{i}": pa.array(np.array(list("abcdef"))[rng.integers(0, 6, n)]) for i in range(5)}
        columns["p"], columns["y"] = p, (rng.random(n) < p).astype(np.int8)
        columns["at"] = pa.array(1_704_067_200 + np.arange(start, start + n) * 60, pa.timestamp("s"))
        columns["id"] = [f"order-{i}" for i in range(start, start + n)]
        part = pa.table(columns)
        writer = writer or parquet.ParquetWriter(path, part.schema)
        writer.write_table(part)
    writer.close()
    return path


if __name__ == "__main__":
    main()
