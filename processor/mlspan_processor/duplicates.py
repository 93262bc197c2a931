"""Stage 4, part 1: a span that an OTLP client sends twice counts once.

In: the trace and span ids of a batch. Out: which spans are new. An id is remembered as 64 bits (low half of the trace
id times an odd number, XOR span id) in one of many short rings: a table of sets of 32 places, the set chosen by the
mixed key, where the newest key takes the place of the oldest. There are one and a half times as many places as
`capacity`, so that each of the last `capacity / 2` keys is still there but for one in some million (a Poisson tail);
most are for longer. Two different spans are taken for one with probability 32 / 2**64.
Memory: 12 bytes an id of the capacity, 24 MB by default, all of it from the start.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.runs import Keys

_WAYS: Final = 32
_SPARE: Final = 1.5
_AT_ONCE: Final = 2048
"""Keys whose sets are compared at once: their places stay in the processor's cache."""
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_NOTHING: Final = np.uint64(0)
_STAND_IN: Final = np.uint64(0xA0761D6478BD642F)


class RecentSpans:
    """The ids of recent spans."""

    def __init__(self, capacity: int = 2_000_000) -> None:
        n_sets = max(1, -(-int(capacity * _SPARE) // _WAYS))
        # Written to, not only reserved: memory that is needed in the end is taken at the start.
        self._keys = np.full((n_sets, _WAYS), _NOTHING, np.uint64)
        self._next = np.full(n_sets, 0, np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of the table, the same at all times."""
        return self._keys.nbytes + self._next.nbytes

    def fresh(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of these spans (n,) are new; remembers them. Of equal keys within the batch, the first is
        new."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        new = np.ones(len(keys), bool)
        new[1:] = ordered[1:] != ordered[:-1]
        ordered = np.where(ordered == _NOTHING, _STAND_IN, ordered)
        sets = self._sets(ordered)
        new &= ~self._contains(ordered, sets)
        self._add(ordered[new], sets[new])
        fresh = np.empty(len(keys), bool)
        fresh[order] = new
        return fresh

    def seen(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of these spans (n,) are remembered; remembers nothing."""
        keys = np.where(keys == _NOTHING, _STAND_IN, keys)
        return self._contains(keys, self._sets(keys))

    def remember(self, keys: Keys) -> None:
        """Take keys (n,) as seen, oldest first."""
        for start in range(0, len(keys), _AT_ONCE):
            self.fresh(keys[start : start + _AT_ONCE])

    def _contains(self, keys: Keys, sets: NDArray[np.intp]) -> NDArray[np.bool_]:
        found = np.zeros(len(keys), bool)
        for start in range(0, len(keys), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found[part] = (self._keys[sets[part]] == keys[part, None]).any(axis=1)
        return found

    def _sets(self, keys: Keys) -> NDArray[np.intp]:
        """The set of each key: the upper half of its product with an odd number, scaled to the sets."""
        mixed = (keys * _MIX) >> _HALF
        return ((mixed * np.uint64(len(self._next))) >> _HALF).astype(np.intp)

    def _add(self, keys: Keys, sets: NDArray[np.intp]) -> None:
        """Put different keys into their sets; several of one set take its places one after the other."""
        order = np.argsort(sets, kind="stable")
        sets = sets[order]
        firsts = np.flatnonzero(np.diff(sets, prepend=-1))
        counts = np.diff(firsts, append=len(sets))
        rank = np.arange(len(sets)) - np.repeat(firsts, counts)
        self._keys[sets, (self._next[sets] + rank) % _WAYS] = keys[order]
        at = sets[firsts]
        self._next[at] = (self._next[at] + counts) % _WAYS


def recent_keys(traces: NDArray[np.uint64], spans: NDArray[np.uint64]) -> Keys:
    """Keys (n,) of spans (n,) in traces (n, 2).

    Multiplied, since tracers of Zipkin's kind give a root span the low half of its trace id.
    """
    return traces[:, 1] * _ODD ^ spans


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
