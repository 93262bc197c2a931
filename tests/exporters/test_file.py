"""The file exporter: whole lines, rotation, a full disk, what a crash left."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from mlspan_exporters import file
from mlspan_exporters.file import LENGTH, FileExporter, FileSettings, backups_of
from mlspan_exporters.otlp_json import to_json
from mlspan_exporters.testing import chunk_of
from mlspan_exporters.wire import REQUESTS
from mlspan_processor.records import Chunk, ExportResult, PermanentError, RetryableError, Signal

from . import requests

CHUNK = chunk_of(requests.traces())
LINE = to_json(requests.traces()) + b"\n"


@contextmanager
def exporter_to(path: Path, **settings: Any) -> Iterator[FileExporter]:
    """Give a started exporter."""
    exporter = FileExporter(FileSettings.model_validate({"path": str(path)} | settings), "file/test")
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.shutdown()


def test_each_chunk_is_a_line_of_json(tmp_path: Path) -> None:
    """Chunks of all signals become one line each."""
    path = tmp_path / "out.jsonl"
    with exporter_to(path, fsync=True) as exporter:
        for name in ("traces", "metrics", "logs"):
            assert exporter.export(chunk_of(getattr(requests, name)()), 1.0) == ExportResult()
    lines = path.read_bytes().splitlines()
    assert [next(iter(orjson.loads(line))) for line in lines] == ["resourceSpans", "resourceMetrics", "resourceLogs"]


def test_proto_is_length_prefixed(tmp_path: Path) -> None:
    """In the format `proto` each request stands behind its length, unchanged."""
    path = tmp_path / "out.pb"
    with exporter_to(path, format="proto") as exporter:
        exporter.export(CHUNK, 1.0)
        exporter.export(CHUNK, 1.0)
    data = path.read_bytes()
    (length,) = LENGTH.unpack_from(data)
    assert length == len(CHUNK.data)
    assert data == (LENGTH.pack(length) + CHUNK.data) * 2
    assert REQUESTS[Signal.TRACES].FromString(data[4 : 4 + length]) is not None


@pytest.mark.parametrize(("append", "expected"), [(True, [b"old", LINE.strip()]), (False, [LINE.strip()])])
def test_append_or_begin_anew(tmp_path: Path, append: bool, expected: list[bytes]) -> None:
    """What the file holds stays, unless `append` is false."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old\n")
    with exporter_to(path, append=append) as exporter:
        exporter.export(CHUNK, 1.0)
    assert path.read_bytes().splitlines() == expected


def test_line_that_a_crash_left_unfinished_is_ended(tmp_path: Path) -> None:
    """After a crash in the middle of a line, the next line begins on its own."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(LINE + LINE[:50])
    with exporter_to(path) as exporter:
        exporter.export(CHUNK, 1.0)
    assert path.read_bytes() == LINE + LINE[:50] + b"\n" + LINE


def test_request_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    """After a crash in the middle of a protobuf request, the lengths stay right."""
    path = tmp_path / "out.pb"
    whole = LENGTH.pack(len(CHUNK.data)) + CHUNK.data
    path.write_bytes(whole + whole[:40])
    with exporter_to(path, format="proto") as exporter:
        exporter.export(CHUNK, 1.0)
    assert path.read_bytes() == whole * 2


def test_foreign_file_is_left_alone(tmp_path: Path) -> None:
    """A file that holds something else is not cut, but refused at the start."""
    path = tmp_path / "precious.txt"
    path.write_bytes(b"a text that is none of ours")
    with pytest.raises(OSError, match="holds no length-prefixed requests"), exporter_to(path, format="proto"):
        pass
    assert path.read_bytes() == b"a text that is none of ours"


class FullDisk:
    """Writes only so many bytes of what it is given, then there is no room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write what there is room for."""
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 100])
def test_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """When the disk is full the file ends where it did before, the chunk may come again, and then is written."""
    path = tmp_path / "out.jsonl"
    with exporter_to(path) as exporter:
        exporter.export(CHUNK, 1.0)
        disk = FullDisk(monkeypatch, room)
        with pytest.raises(RetryableError, match=r'file/test: ".*out.jsonl" cannot be written: No space left'):
            exporter.export(CHUNK, 1.0)
        assert path.read_bytes() == LINE
        disk.room = 10**9
        exporter.export(CHUNK, 1.0)
    assert path.read_bytes() == LINE * 2


def test_half_a_line_that_could_not_be_cut_is_cut_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When even cutting back fails, it is done before the next write."""
    path = tmp_path / "out.jsonl"
    with exporter_to(path) as exporter:
        disk = FullDisk(monkeypatch, 100)
        with monkeypatch.context() as broken:
            broken.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
            with pytest.raises(RetryableError):
                exporter.export(CHUNK, 1.0)
        assert path.stat().st_size == 100
        disk.room = 10**9
        exporter.export(CHUNK, 1.0)
    assert path.read_bytes() == LINE


def test_file_that_was_emptied_is_written_from_its_beginning(tmp_path: Path) -> None:
    """Who empties the file (logrotate's copytruncate) finds the next line at its beginning."""
    path = tmp_path / "out.jsonl"
    with exporter_to(path) as exporter:
        exporter.export(CHUNK, 1.0)
        os.truncate(path, 0)
        exporter.export(CHUNK, 1.0)
    assert path.read_bytes() == LINE


def test_rotation_keeps_so_many_full_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that would pass its size is set aside under the time, and the oldest ones go."""
    monkeypatch.setattr(file, "MEGABYTE", 2 * len(LINE))
    path = tmp_path / "out[1].jsonl"
    (tmp_path / "out[1]-notes.jsonl").write_text("not ours")
    with exporter_to(path, rotation={"max_megabytes": 1, "max_backups": 2}) as exporter:
        for _ in range(9):
            exporter.export(CHUNK, 1.0)
    assert path.read_bytes() == LINE
    backups = backups_of(path)
    assert [backup.read_bytes() for backup in backups] == [LINE * 2] * 2
    assert (tmp_path / "out[1]-notes.jsonl").exists()


def test_rotation_without_limit_keeps_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`max_backups: 0` deletes nothing."""
    monkeypatch.setattr(file, "MEGABYTE", 1)
    path = tmp_path / "out.jsonl"
    with exporter_to(path, rotation={"max_megabytes": 1, "max_backups": 0}) as exporter:
        for _ in range(4):
            exporter.export(CHUNK, 1.0)
    assert len(backups_of(path)) == 3


def test_rotation_survives_a_file_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody took the file away, rotation begins a new one."""
    monkeypatch.setattr(file, "MEGABYTE", 1)
    path = tmp_path / "out.jsonl"
    with exporter_to(path, rotation={"max_megabytes": 1}) as exporter:
        exporter.export(CHUNK, 1.0)
        path.unlink()
        exporter.export(CHUNK, 1.0)
    assert path.read_bytes() == LINE


def test_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A path in a folder that is not there fails at the start, with the path."""
    with pytest.raises(OSError, match=r'file/test: path ".*nowhere/out.jsonl" cannot be opened: No such file'):
        exporter_to(tmp_path / "nowhere" / "out.jsonl").__enter__()


def test_chunk_that_is_no_otlp_is_permanent(tmp_path: Path) -> None:
    """Bytes that are no OTLP are refused for good."""
    with exporter_to(tmp_path / "out.jsonl") as exporter, pytest.raises(PermanentError):
        exporter.export(Chunk(Signal.TRACES, b"\xff", 1), 1.0)
