"""The debug exporter: three verbosities, sampling, bounds."""

import io
from typing import Any

import pytest

from mlspan_exporters.debug import DebugExporter, DebugSettings
from mlspan_exporters.testing import chunk_of
from mlspan_processor.records import Chunk, PermanentError, Signal

from . import requests
from .golden import assert_golden
from .requests import model_span


def written(*chunks: Chunk, clock: Any = lambda: 0.0, **settings: Any) -> str:
    """Return what the exporter writes of `chunks`."""
    stream = io.StringIO()
    exporter = DebugExporter(DebugSettings.model_validate(settings), "debug", clock, stream)
    exporter.start()
    for chunk in chunks:
        exporter.export(chunk, 1.0)
    exporter.shutdown()
    return stream.getvalue()


ALL = [chunk_of(requests.traces()), chunk_of(requests.metrics()), chunk_of(requests.logs())]


def test_basic_counts() -> None:
    """By default there is one line per chunk, with its counts."""
    assert written(*ALL) == (
        "debug: traces: spans: 2\ndebug: metrics: metrics: 6, data points: 8\ndebug: logs: log records: 2\n"
    )


@pytest.mark.parametrize("verbosity", ["normal", "detailed"])
def test_golden(verbosity: str) -> None:
    """One of everything is written as it always was."""
    assert_golden(f"debug_{verbosity}.txt", written(*ALL, verbosity=verbosity).encode())


def test_output_is_bounded() -> None:
    """Of a chunk no more than `max_lines` are written, of a value no more than 256 characters."""
    text = written(ALL[0], verbosity="detailed", max_lines=5)
    assert len(text.splitlines()) == 6
    assert text.splitlines()[-1] == "… more than max_lines (5), the rest is left out"
    span = model_span(name="x" * 1000)
    assert "x" * 256 + "… (1000 characters)" in written(chunk_of(requests.traces(span)), verbosity="detailed")


@pytest.mark.parametrize(("thereafter", "expected"), [(1, 10), (4, 4), (0, 2)])
def test_sampling(thereafter: int, expected: int) -> None:
    """Of each second the first chunks are written, then every so many."""
    text = written(*[ALL[0]] * 10, sampling_initial=2, sampling_thereafter=thereafter)
    assert len(text.splitlines()) == expected


def test_sampling_begins_anew_each_second() -> None:
    """The next second has its first chunks again."""
    times = iter([0.1, 0.2, 1.1, 1.2])
    text = written(*[ALL[0]] * 4, clock=lambda: next(times), sampling_initial=1, sampling_thereafter=0)
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("output", ["stdout", "stderr"])
def test_output_is_chosen(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines go to the stream that is set."""
    exporter = DebugExporter(DebugSettings.model_validate({"output": output}), "debug/1")
    exporter.export(ALL[0], 1.0)
    assert getattr(capsys.readouterr(), output.removeprefix("std")) == "debug/1: traces: spans: 2\n"


def test_chunk_that_is_no_otlp_is_permanent() -> None:
    """Bytes that are no OTLP are refused for good."""
    with pytest.raises(PermanentError):
        written(Chunk(Signal.LOGS, b"\xff", 1))
