"""The memory_limiter processor: refuses chunks, with a retryable error, while the process uses too much
memory.

Above the soft limit (limit minus spike) data is refused; above the limit garbage is also collected, at most
every ten seconds. Memory is measured when a chunk comes and the last measurement is older than
`check_interval`: no thread. Source: the Collector's memorylimiterprocessor.
"""

import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mlspan_processor.config.schema import MemoryLimiter
from mlspan_processor.records import Chunk, Consumer, RetryableError
from mlspan_processor.telemetry import Telemetry, memory_rss_bytes

_log = logging.getLogger(__name__)

_MIB = 1 << 20
_COLLECT_INTERVAL_SECONDS = 10.0
_DEFAULT_SPIKE_RATIO = 0.2
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class MemoryGate:
    """The judgement, shared by all pipelines that name the processor."""

    def __init__(
        self,
        settings: MemoryLimiter,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        used_bytes: Callable[[], int] = memory_rss_bytes,
        total_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.name = name
        self._interval = settings.check_interval
        self._clock = clock
        self._used_bytes = used_bytes
        self.hard_bytes, self.soft_bytes = limits(settings, total_bytes or total_memory_bytes)
        self._lock = threading.Lock()
        self._checked = float("-inf")
        self._collected = float("-inf")
        self._refusing = False
        self._last_bytes = 0

    def check(self) -> None:
        """Raise RetryableError while memory is above the soft limit."""
        now = self._clock()
        with self._lock:
            if now - self._checked >= self._interval:
                self._checked = now
                self._measure(now)
            refusing, used = self._refusing, self._last_bytes
        if refusing:
            raise RetryableError(
                f'"{self.name}": {used // _MIB} MiB in use, above {self.soft_bytes // _MIB} MiB',
                self._interval,
            )

    def _measure(self, now: float) -> None:
        used = self._used_bytes()
        if used > self.hard_bytes and now - self._collected >= _COLLECT_INTERVAL_SECONDS:
            self._collected = now
            gc.collect()
            used = self._used_bytes()
        refusing = used > self.soft_bytes
        if refusing != self._refusing:
            log = _log.warning if refusing else _log.info
            word = "refuses data" if refusing else "takes data again"
            log(
                'processor "%s" %s: %d MiB in use, limit %d MiB',
                self.name,
                word,
                used // _MIB,
                self.soft_bytes // _MIB,
            )
        self._refusing, self._last_bytes = refusing, used


class LimitedConsumer:
    """The processor in one pipeline."""

    def __init__(self, gate: MemoryGate, following: Consumer, telemetry: Telemetry) -> None:
        self._gate = gate
        self._following = following
        self._telemetry = telemetry

    def consume(self, chunk: Chunk) -> None:
        """Hand on, or raise RetryableError."""
        try:
            self._gate.check()
        except RetryableError:
            self._telemetry.items("mlspan_processor_refused_{items}", chunk.signal, processor=self._gate.name).add(
                chunk.items
            )
            raise
        self._following.consume(chunk)


def limits(settings: MemoryLimiter, total_bytes: Callable[[], int]) -> tuple[int, int]:
    """Return the hard and the soft limit in bytes."""
    if settings.limit_mib:
        hard = settings.limit_mib * _MIB
        spike = settings.spike_limit_mib * _MIB
    else:
        total = total_bytes()
        hard = total * settings.limit_percentage // 100
        spike = total * settings.spike_limit_percentage // 100
    return hard, hard - (spike or int(hard * _DEFAULT_SPIKE_RATIO))


def total_memory_bytes() -> int:
    """Return the container's memory limit where there is one, else the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            return min(int(text), machine)
    return machine
