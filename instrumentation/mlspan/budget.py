"""Stage 2, capture: the byte budget that keeps exported batches below a receiver's limit.

Reads the sizes of the payloads of consecutive spans, answers how large the next one may be. Guarantee: any `spans`
consecutive payloads that were taken hold at most `limit_bytes` together, and a payload of at most `floor_bytes` is
always taken. Memory: one integer for each of the last `spans` + 64 payloads. Time is not read: an exporter that lags
behind sends old and new spans in one request, so only the number of spans counts.

Each span owns a floor of three quarters of its fair share (limit / spans); what a payload holds above its floor comes
out of a common burst, the last quarter, and returns to it `spans` payloads later. A call may ask for one eighth of
what is left of the burst, so that one large batch cannot starve the next ones.
"""

import os
import threading
import weakref
from typing import Final

SPANS: Final = 512
"""max_export_batch_size of OpenTelemetry's batch processor."""
LIMIT_BYTES: Final = 3 << 20
"""Below gRPC's default limit of 4 MiB, with 1 MiB for all else that 512 spans carry."""
REORDERED_SPANS: Final = 64
"""Payloads are taken before their spans end; threads may end up to this many spans in another order."""
BURST_SHARE: Final = 8


class ByteBudget:
    """How many payload bytes the next span may carry; one object per process, used by all threads.

    Args:
        spans: spans in one export request.
        limit_bytes: payload bytes in one export request.
    """

    __slots__ = ("__weakref__", "_at", "_burst", "_excess", "_lock", "_sizes", "floor_bytes")

    def __init__(self, spans: int = SPANS, limit_bytes: int = LIMIT_BYTES) -> None:
        slots = max(1, spans) + REORDERED_SPANS
        self.floor_bytes = limit_bytes * 3 // (4 * slots)
        self._burst = limit_bytes - self.floor_bytes * slots
        self._sizes = [0] * slots
        self._excess = 0
        self._at = 0
        self._lock = threading.Lock()
        _budgets.add(self)

    def allowance(self) -> int:
        """The size in bytes that a fair next payload keeps to; a hint, without a lock."""
        return self.floor_bytes + (self._burst - self._excess) // BURST_SHARE

    def take(self, size: int) -> bool:
        """Account for the next span's payload of `size` bytes; False when it must not be sent."""
        excess = size - self.floor_bytes
        if excess < 0:
            excess = 0
        with self._lock:
            at = self._at
            left = self._excess - self._sizes[at]
            taken = left + excess <= self._burst
            if not taken:
                excess = 0
            self._sizes[at] = excess
            self._excess = left + excess
            self._at = at + 1 if at + 1 < len(self._sizes) else 0
        return taken


_budgets: "weakref.WeakSet[ByteBudget]" = weakref.WeakSet()


def _renew_locks() -> None:
    """A lock that another thread held at a fork would stay held in the child for ever."""
    for budget in list(_budgets):
        budget._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
