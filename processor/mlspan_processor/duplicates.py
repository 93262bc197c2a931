"""Stage 4, part 1: a span that an OTLP client sends twice counts once.

In: the trace and span ids of a batch. Out: which spans are new. An id is remembered as 64 bits (low half of
the trace id times an odd number, XOR span id) for at least half of the last `capacity` spans: generations of
capacity / 2, the older of two dropped when the younger is full. Two different spans share
a key with probability n / 2**64: 1e-13 at 2 million. Memory: 8 bytes an id, 16 MB by default.
"""

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.runs import Keys


class RecentSpans:
    """The ids of recent spans."""

    def __init__(self, capacity: int = 2_000_000) -> None:
        self._half = max(1, capacity // 2)
        self._young = _KeySet()
        self._old = _KeySet()

    @property
    def nbytes(self) -> int:
        """Bytes of the remembered keys."""
        return self._young.nbytes + self._old.nbytes

    def fresh(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of these spans (n,) are new; remembers them. Of equal keys within the batch, the first is
        new."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        new = np.ones(len(keys), bool)
        new[1:] = ordered[1:] != ordered[:-1]
        new &= ~self._young.contains(ordered)
        new &= ~self._old.contains(ordered)
        self._young.add(ordered[new])
        if len(self._young) >= self._half:
            self._old, self._young = self._young, _KeySet()
        fresh = np.empty(len(keys), bool)
        fresh[order] = new
        return fresh


class _KeySet:
    """Sorted arrays of keys, merged as a binary counter adds (see runs.py); no positions, so that a merge is
    one sort."""

    def __init__(self) -> None:
        self._runs: list[Keys] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    @property
    def nbytes(self) -> int:
        return sum(run.nbytes for run in self._runs)

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        found = np.zeros(len(keys), bool)
        for run in self._runs:
            at = np.searchsorted(run, keys)
            found |= run.take(at, mode="clip") == keys
        return found

    def add(self, keys: Keys) -> None:
        if not len(keys):
            return
        while self._runs and len(self._runs[-1]) < 2 * len(keys):
            keys = np.concatenate([self._runs.pop(), keys])
            keys.sort(kind="stable")
        self._runs.append(keys)


def span_keys(trace_ids: list[bytes], span_ids: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Ids as numbers: (n, 2) little-endian halves of the trace ids and (n,) span ids.

    Ids of another length than OTLP's (16 and 8 bytes) are padded or cut.
    """
    n = len(span_ids)
    traces, spans = b"".join(trace_ids), b"".join(span_ids)
    if len(traces) != 16 * n or set(map(len, trace_ids)) > {16}:
        traces = b"".join(trace[:16].ljust(16, b"\0") for trace in trace_ids)
    if len(spans) != 8 * n or set(map(len, span_ids)) > {8}:
        spans = b"".join(span[:8].ljust(8, b"\0") for span in span_ids)
    return np.frombuffer(traces, "<u8").reshape(n, 2), np.frombuffer(spans, "<u8")
