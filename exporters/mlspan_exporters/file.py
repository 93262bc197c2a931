"""Stage 8, file: OTLP as lines of JSON, or as length-prefixed protobuf, in a file that rotates by size.

Reads `Chunk`s of any signal; writes one request per chunk, whole or not at all: when the disk is full the
file is cut back to where it was, and the chunk may come again. Lines are written at once, nothing waits in
memory. The Collector's `otlpjsonfile` receiver reads the result.
Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/
"""

import glob
import os
import struct
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from mlspan_processor.records import Chunk, ExportResult, RetryableError, Signal

from .otlp_json import to_json
from .settings import Settings
from .wire import ALL_SIGNALS, parse

LENGTH: Final = struct.Struct(">I")
"""Before each request in the format `proto`, as the Collector writes it."""
MEGABYTE: Final = 1024 * 1024
MODE: Final = 0o640


class RotationSettings(Settings):
    """When a file is full, and how many full ones stay."""

    max_megabytes: int = Field(default=100, gt=0, description="Size at which a new file is begun.")
    max_backups: int = Field(default=100, ge=0, description="How many full files are kept; 0 keeps all.")


class FileSettings(Settings):
    """Settings of the `file` exporter."""

    path: str = Field(min_length=1, description="The file; its folder must exist.")
    format: Literal["json", "proto"] = Field(
        default="json",
        description="json (a request per line) or proto (each behind its length, 4 bytes, big-endian).",
    )
    append: bool = Field(default=True, description="Keep what the file holds at the start; false empties it.")
    rotation: RotationSettings | None = Field(default=None, description="Begin new files by size; unset: never.")
    fsync: bool = Field(default=False, description="Wait after each chunk until the device holds it.")


class FileExporter:
    """Writes OTLP to a file; `export` may be called from several threads."""

    Config: ClassVar[Any] = FileSettings
    signals: ClassVar[frozenset[Signal]] = ALL_SIGNALS
    queued: ClassVar[bool] = True

    def __init__(self, config: FileSettings, name: str) -> None:
        self._config = config
        self._name = name
        self._path = Path(config.path)
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0
        self._torn = False

    def start(self) -> None:
        """Open the file; a request that a crash left unfinished at its end is separated or cut off.

        Raises:
            OSError: the file cannot be opened; the message names it.
        """
        with self._lock:
            self._open(os.O_APPEND if self._config.append else os.O_APPEND | os.O_TRUNC)
            self._mend()

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:  # noqa: ARG002 a disk has no time limit
        """Write the chunk, all or nothing.

        Raises:
            RetryableError: the disk is full or fails.
            PermanentError: the chunk is no OTLP.
        """
        if self._config.format == "json":
            data = to_json(parse(chunk)) + b"\n"
        else:
            data = LENGTH.pack(len(chunk.data)) + chunk.data
        with self._lock:
            if self._descriptor < 0:
                msg = f"{self._name}: is not started"
                raise RetryableError(msg)
            try:
                self._rotate_before(len(data))
                self._write(data)
            except OSError as error:
                msg = f'{self._name}: "{self._path}" cannot be written: {error.strerror}'
                raise RetryableError(msg) from error
        return ExportResult()

    def shutdown(self) -> None:
        """Close the file."""
        with self._lock:
            self._close()

    def _open(self, flags: int) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, MODE)
        except OSError as error:
            msg = f'{self._name}: path "{self._path}" cannot be opened: {error.strerror}'
            raise OSError(error.errno, msg) from error
        self._size = os.fstat(self._descriptor).st_size
        self._torn = False

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        if self._torn:
            self._cut()
        self._size = os.fstat(self._descriptor).st_size  # somebody may have emptied the file
        self._torn = True
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            if self._config.fsync:
                os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                self._cut()
            raise
        self._size += len(data)
        self._torn = False

    def _cut(self) -> None:
        """Take back what an interrupted write left behind."""
        os.ftruncate(self._descriptor, self._size)
        self._torn = False

    def _mend(self) -> None:
        if self._size == 0:
            return
        if self._config.format == "proto":
            whole = complete_bytes(self._descriptor, self._size)
            if whole == 0:
                msg = f'{self._name}: path "{self._path}" holds no length-prefixed requests: name another file'
                raise OSError(msg)
            self._size = whole
            self._cut()
        elif os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._write(b"\n")

    def _rotate_before(self, length: int) -> None:
        rotation = self._config.rotation
        if rotation is None or self._size == 0 or self._size + length <= rotation.max_megabytes * MEGABYTE:
            return
        with suppress(FileNotFoundError):
            self._path.rename(backup_path(self._path, datetime.now(UTC)))
        # The old file stays open until the new one is: when that fails, writing goes on in the old one.
        old = self._descriptor
        self._open(os.O_APPEND)
        os.close(old)
        if rotation.max_backups:
            for outdated in backups_of(self._path)[: -rotation.max_backups]:
                outdated.unlink(missing_ok=True)


def complete_bytes(descriptor: int, size: int) -> int:
    """Return the length of the whole length-prefixed requests at the beginning of a file of `size` bytes."""
    end = 0
    while end + LENGTH.size <= size:
        (length,) = LENGTH.unpack(os.pread(descriptor, LENGTH.size, end))
        if end + LENGTH.size + length > size:
            break
        end += LENGTH.size + length
    return end


def backup_path(path: Path, now: datetime) -> Path:
    """Return a free name for a full file: `traces.jsonl` becomes `traces-2026-11-22T14-05-00.000.jsonl`."""
    stamp = now.strftime("%Y-%m-%dT%H-%M-%S.") + f"{now.microsecond // 1000:03d}"
    candidate = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
    number = 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{stamp}-{number}{path.suffix}")
    return candidate


def backups_of(path: Path) -> list[Path]:
    """Return the full files of `path`, oldest first."""
    stamp = "[0-9]" * 4 + "-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]-[0-9][0-9]-[0-9][0-9].*"
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}-{stamp}{glob.escape(path.suffix)}"))
