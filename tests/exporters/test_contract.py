"""Every exporter that the entry points name keeps the contract that the processor relies on."""

import doctest
import importlib
import pkgutil
import socket
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import mlspan_exporters
from mlspan_exporters.testing import RecordingExporter, check_exporter, chunk_of
from mlspan_processor.records import RetryableError, Signal

from . import requests

LEAST: Mapping[str, Mapping[str, object]] = {
    "otlp_grpc": {"endpoint": "127.0.0.1:4317"},
    "otlp_http": {"endpoint": "http://127.0.0.1:4318"},
    "zipkin": {"endpoint": "http://127.0.0.1:9411/api/v2/spans"},
    "file": {"path": "traces.jsonl"},
}
FOUND = {entry.name: entry for entry in entry_points(group="mlspan_exporter")}


def test_entry_points_name_the_six_exporters() -> None:
    """The six exporters of the documentation are found by their entry points."""
    assert set(FOUND) >= {"otlp_grpc", "otlp_http", "zipkin", "prometheus", "file", "debug"}


@pytest.mark.parametrize("entry", FOUND.values(), ids=FOUND.keys())
def test_exporter_keeps_the_contract(entry: EntryPoint) -> None:
    """An exporter has described settings that refuse unknown keys, and may be shut down before start and twice."""
    check_exporter(entry.load(), LEAST.get(entry.name, {}))


def test_contract_check_finds_a_missing_description() -> None:
    """The check that third parties run fails on a setting without a description."""

    class Bad(RecordingExporter):
        class Config(RecordingExporter.Config):
            size: int = 3

    with pytest.raises(AssertionError, match="size must have a description"):
        check_exporter(Bad, {})


@pytest.mark.parametrize("entry", FOUND.values(), ids=FOUND.keys())
def test_unknown_setting_is_refused(entry: EntryPoint) -> None:
    """A misspelt key is an error that names it."""
    with pytest.raises(ValidationError, match="endpiont"):
        entry.load().Config.model_validate({**LEAST.get(entry.name, {}), "endpiont": "x"})


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("otlp_grpc", "127.0.0.1:{port}"),
        ("otlp_http", "http://127.0.0.1:{port}"),
        ("zipkin", "http://127.0.0.1:{port}"),
    ],
)
def test_dead_backend_is_retryable_and_named(name: str, endpoint: str) -> None:
    """A backend that is down does not hinder the start; sending to it is retryable and names the endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = endpoint.format(port=free.getsockname()[1])
    exporter: Any = FOUND[name].load()
    exporter = exporter(exporter.Config.model_validate({"endpoint": address}), f"{name}/eu")
    exporter.start()
    try:
        with pytest.raises(RetryableError) as raised:
            exporter.export(chunk_of(requests.traces()), 5.0)
    finally:
        exporter.shutdown()
    assert address in str(raised.value)
    assert f"{name}/eu" in str(raised.value)
    assert "refused" in str(raised.value).lower()


@pytest.mark.parametrize("name", ["otlp_grpc", "otlp_http", "zipkin", "file"])
def test_export_before_start_may_be_tried_again(name: str) -> None:
    """An exporter that is not started, or is shut down, asks to try again and says why."""
    exporter = FOUND[name].load()
    exporter = exporter(exporter.Config.model_validate(LEAST[name]), name)
    with pytest.raises(RetryableError, match="is not started"):
        exporter.export(chunk_of(requests.traces()), 1.0)


def test_chunk_counts_items() -> None:
    """A chunk made for tests counts spans, data points and log records."""
    assert chunk_of(requests.traces()).items == 2
    assert chunk_of(requests.metrics()).items == 8
    assert chunk_of(requests.logs()).items == 2
    assert chunk_of(requests.logs()).signal is Signal.LOGS


MODULES = sorted(module.name for module in pkgutil.iter_modules(mlspan_exporters.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    """The examples in the documentation strings say what happens."""
    module = importlib.import_module(f"mlspan_exporters.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_file_tells_its_stage_and_is_short(name: str) -> None:
    """Each file begins with its stage or purpose and is below 400 lines."""
    text = (Path(mlspan_exporters.__path__[0]) / f"{name}.py").read_text()
    assert text.startswith(('"""Stage 8, ', '"""For tests'))
    assert text.count("\n") < 400
