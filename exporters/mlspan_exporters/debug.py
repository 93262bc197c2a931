"""Stage 8, debug: writes what passes to the terminal.

Reads `Chunk`s of any signal; writes a line per chunk (`basic`), a line per item (`normal`) or every field
(`detailed`), of each chunk at most `max_lines`, and of the chunks of a second only the first ones and every
so many after. Keeps nothing.
Source: the Collector's exporter/debugexporter
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, ClassVar, Final, Literal, TextIO

from pydantic import Field

from mlspan_processor.records import Chunk, ExportResult, Signal

from .debug_text import count_items, detailed_lines, items_of, normal_lines
from .settings import Settings
from .wire import ALL_SIGNALS, Request, parse

ITEM_WORDS: Final = {Signal.TRACES: "spans", Signal.METRICS: "metrics", Signal.LOGS: "log records"}


class DebugSettings(Settings):
    """Settings of the `debug` exporter."""

    verbosity: Literal["basic", "normal", "detailed"] = Field(
        default="basic", description="basic (counts), normal (a line per item) or detailed (a line per field)."
    )
    output: Literal["stdout", "stderr"] = Field(default="stderr", description="Where the lines go.")
    sampling_initial: int = Field(
        default=2, ge=0, description="How many chunks of each second are written for certain."
    )
    sampling_thereafter: int = Field(
        default=1,
        ge=0,
        description="Of the second's further chunks, every so many is written; 1 writes all, 0 none.",
    )
    max_lines: int = Field(default=1000, gt=0, description="Most lines for one chunk; how many are left out is told.")


class DebugExporter:
    """Writes to the terminal; `export` may be called from several threads."""

    Config: ClassVar[Any] = DebugSettings
    signals: ClassVar[frozenset[Signal]] = ALL_SIGNALS
    queued: ClassVar[bool] = False

    def __init__(
        self,
        config: DebugSettings,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        self._config = config
        self._name = name
        self._clock = clock
        self._stream = stream
        self._lock = threading.Lock()
        self._second = -1
        self._seen = 0

    def start(self) -> None:
        """Do nothing: the terminal is open."""

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:  # noqa: ARG002 a terminal has no time limit
        """Write the chunk, or skip it where sampling says so.

        Raises:
            PermanentError: the chunk is no OTLP.
        """
        if not self._wanted():
            return ExportResult()
        lines = list(islice(self._lines(chunk), self._config.max_lines + 1))
        if len(lines) > self._config.max_lines:
            lines[-1] = f"… more than max_lines ({self._config.max_lines}), the rest is left out"
        stream = self._stream or (sys.stdout if self._config.output == "stdout" else sys.stderr)
        with self._lock:
            stream.write("".join(f"{line}\n" for line in lines))
            stream.flush()
        return ExportResult()

    def shutdown(self) -> None:
        """Do nothing: the terminal stays open."""

    def _wanted(self) -> bool:
        second = int(self._clock())
        with self._lock:
            if second != self._second:
                self._second, self._seen = second, 0
            self._seen += 1
            later = self._seen - self._config.sampling_initial
        every = self._config.sampling_thereafter
        return later <= 0 or (every > 0 and later % every == 0)

    def _lines(self, chunk: Chunk) -> Iterator[str]:
        request = parse(chunk)
        yield f"{self._name}: {chunk.signal.value}: {_counts(chunk.signal, request)}"
        if self._config.verbosity == "normal":
            yield from normal_lines(request)
        elif self._config.verbosity == "detailed":
            yield from detailed_lines(request)


def _counts(signal: Signal, request: Request) -> str:
    counts = f"{ITEM_WORDS[signal]}: {sum(1 for _ in items_of(request))}"
    return f"{counts}, data points: {count_items(request)}" if signal is Signal.METRICS else counts
