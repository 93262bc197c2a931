"""What the processor says on stderr: one line or one JSON object a record, repeated messages held back.

The same message (same place in the code, same format string and component) is written at most five times in
ten seconds; the first one after that tells how many were left out, or the last one where none comes. So a dead
backend costs a few lines, not one per request.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TextIO

_BURST = 5
PERIOD_SECONDS = 10.0
_MAX_KEYS = 1_000
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_ROOT = "mlspan_processor"
_PACKAGES = (_ROOT, "mlspan_exporters", "grpc", "aiohttp", "asyncio")


class RateLimit(logging.Filter):
    """Lets the first records of each kind through and counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[object, ...], list[float]] = {}
        """Key to [start of the period, records in it]."""
        self._left_out: dict[tuple[object, ...], logging.LogRecord] = {}
        """Key to the last record that was left out of a period that still runs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write it; adds the number left out to the message."""
        first = record.args[0] if isinstance(record.args, tuple) and record.args else None
        key = (record.pathname, record.lineno, record.msg, first if isinstance(first, str) else None)
        now = self._clock()
        with self._lock:
            if len(self._seen) >= _MAX_KEYS and key not in self._seen:
                self._seen.clear()
                self._left_out.clear()
            period = self._seen.setdefault(key, [now, 0])
            held_back = 0
            if now - period[0] >= PERIOD_SECONDS:
                held_back = max(int(period[1]) - _BURST, 0)
                period[:] = [now, 0]
                self._left_out.pop(key, None)
            period[1] += 1
            if period[1] > _BURST:
                self._left_out[key] = record
                return False
        if held_back:
            _add(record, held_back)
        return True

    def tell(self, handler: logging.Handler, *, only_past: bool = False) -> None:
        """Write the last record of each kind that is left out, with their number; `only_past`: of past periods."""
        now = self._clock()
        waiting = []
        with self._lock:
            for key, record in list(self._left_out.items()):
                start, seen = self._seen[key]
                if not only_past or now - start >= PERIOD_SECONDS:
                    waiting.append((record, int(seen) - _BURST - 1))
                    del self._left_out[key], self._seen[key]
        for record, others in waiting:
            if others:
                _add(record, others)
            handler.acquire()
            try:
                handler.emit(record)
            finally:
                handler.release()


def _add(record: logging.LogRecord, left_out: int) -> None:
    record.msg = f"{record.getMessage()} ({left_out} more like this were left out)"
    record.args = ()


class ConsoleFormatter(logging.Formatter):
    """``2026-11-22T17:00:00.123Z  warn  message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the traceback if there is one."""
        text = f"{_time(record)}\t{_level(record)}\t{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the Collector's keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        fields = {
            "level": _level(record),
            "ts": _time(record),
            "caller": f"{record.module}.py:{record.lineno}",
            "msg": record.getMessage(),
        }
        if record.exc_info:
            fields["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def setup(level: str, encoding: Literal["console", "json"], stream: TextIO | None = None) -> logging.Handler:
    """Send the log of the processor and its libraries to `stream` (stderr); return the handler."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if encoding == "json" else ConsoleFormatter())
    handler.addFilter(RateLimit())
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        for old in [one for one in logger.handlers if isinstance(one.formatter, ConsoleFormatter | JsonFormatter)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.propagate = False
        # Libraries only speak up when something is wrong.
        logger.setLevel(_LEVELS[level] if name.startswith("mlspan") else max(_LEVELS[level], logging.WARNING))
    return handler


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(record: logging.LogRecord) -> str:
    return "warn" if record.levelno == logging.WARNING else record.levelname.lower()
