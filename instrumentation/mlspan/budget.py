"""Stage 2, capture: the byte budget that keeps exported batches below a receiver's limit.

Reads the sizes of the payloads of consecutive spans, answers how large the next one may be. Guarantee: any `spans`
consecutive payloads hold at most `limit_bytes` together, and a payload of at most `rate_bytes` is always taken.
Memory: one number. Time is not read: an exporter that lags behind sends old and new spans in one request, so only
the number of spans counts.

A token bucket (Turner, "New directions in communications", 1986) whose clock is the span: each payload first earns
`rate_bytes`, seven eighths of its fair share (limit / spans), and then costs its size; what was not used gathers in
the bucket up to one eighth of the limit. Hence n payloads cost at most capacity + n · rate. A call is offered one
quarter of what has gathered, so that one large batch leaves something for the next, and batches without end come to
even shares.
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
BURST_SHARE: Final = 4


class ByteBudget:
    """How many payload bytes the next span may carry; one object per process, used by all threads.

    Args:
        spans: spans in one export request.
        limit_bytes: payload bytes in one export request.
    """

    __slots__ = ("__weakref__", "_capacity", "_lock", "_tokens", "rate_bytes")

    def __init__(self, spans: int = SPANS, limit_bytes: int = LIMIT_BYTES) -> None:
        slots = max(1, spans) + REORDERED_SPANS
        self.rate_bytes = limit_bytes * 7 // (8 * slots)
        self._capacity = self._tokens = limit_bytes - self.rate_bytes * slots
        self._lock = threading.Lock()
        _budgets.add(self)

    def allowance(self) -> int:
        """The size in bytes that a fair next payload keeps to; a hint, without a lock."""
        return min(self.rate_bytes + self._tokens // BURST_SHARE, self._capacity)

    def take(self, size: int) -> bool:
        """Account for the next span's payload of `size` bytes; False when it must not be sent."""
        with self._lock:
            earned = self._tokens + self.rate_bytes
            if earned > self._capacity:
                earned = self._capacity
            taken = size <= earned
            self._tokens = earned - size if taken else earned
        return taken


_budgets: "weakref.WeakSet[ByteBudget]" = weakref.WeakSet()


def _renew_locks() -> None:
    """A lock that another thread held at a fork would stay held in the child for ever."""
    for budget in list(_budgets):
        budget._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
