"""Settings: options win over the environment, unusable values are named and passed over, declarative files work."""

import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mlspan.config import OPERATIONS, CaptureHook, Options, Settings, load_settings
from mlspan.hooks.sklearn import SklearnInstrumentor
from tests.instrumentation.programs import run
from tests.otlp_sink import OtlpSink

PREFIX = "OTEL_INSTRUMENTATION_ML_"


def test_defaults() -> None:
    """Without anything said, everything is as documented."""
    assert load_settings({}, {}) == Settings(
        model_name=None,
        model_version=None,
        capture_content=True,
        allow=(),
        deny=(),
        max_rows=1024,
        max_bytes=131072,
        max_columns=1024,
        hash_key=b"mlspan",
        operations=OPERATIONS,
        capture_hook=None,
        reference_dir=None,
        record_exceptions=False,
    )


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("MODEL_NAME", "fraud-model", "model_name", "fraud-model"),
        ("MODEL_VERSION", "7", "model_version", "7"),
        ("CAPTURE_CONTENT", "False", "capture_content", False),
        ("CAPTURE_ALLOW", "age, income_*", "allow", ("age", "income_*")),
        ("CAPTURE_DENY", "name", "deny", ("name",)),
        ("CAPTURE_MAX_ROWS", "10", "max_rows", 10),
        ("CAPTURE_MAX_BYTES", "1000", "max_bytes", 1000),
        ("CAPTURE_MAX_COLUMNS", "5", "max_columns", 5),
        ("HASH_KEY", "secret", "hash_key", b"secret"),
        ("OPERATIONS", "predict,predict_proba", "operations", frozenset({"predict", "predict_proba"})),
        ("REFERENCE_DIR", "/references", "reference_dir", "/references"),
        ("RECORD_EXCEPTIONS", "true", "record_exceptions", True),
    ],
)
def test_environment(variable: str, text: str, name: str, value: object) -> None:
    """Each setting has its variable, and an option of the same name wins."""
    environ = {PREFIX + variable: text}
    assert getattr(load_settings({}, environ), name) == value
    other: dict[str, Any] = {"max_rows": 3, "max_bytes": 3, "max_columns": 3, "operations": ["fit"]}
    given = other.get(name, "true" if isinstance(value, bool) else "another")
    if not isinstance(value, bool):
        assert getattr(load_settings({name: given}, environ), name) != value


def test_every_setting_has_a_variable_and_an_option() -> None:
    """No setting is forgotten on any of the three ways."""
    assert [one.name for one in fields(Settings)] == [one.name for one in fields(Options)]
    variables = {one.metadata["variable"] for one in fields(Settings)}
    assert len(variables) == len(fields(Settings))
    assert all(variable.startswith(PREFIX) for variable in variables)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CAPTURE_MAX_ROWS", "many"),
        ("CAPTURE_MAX_ROWS", "0"),
        ("CAPTURE_CONTENT", "maybe"),
        ("OPERATIONS", "predict,guess"),
        ("CAPTURE_HOOK", "no_colon"),
    ],
)
def test_unusable_values(variable: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """An unusable value is named with what would be valid, and the default holds."""
    assert load_settings({}, {PREFIX + variable: text}) == Settings()
    (record,) = caplog.records
    assert (PREFIX + variable) in record.getMessage()
    assert repr(text) in record.getMessage()
    assert "valid: " in record.getMessage()


def test_secrets_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An unusable hash key is not printed."""
    load_settings({"hash_key": "k" * 65}, {})
    assert "kkk" not in caplog.text
    assert "1 to 64 bytes" in caplog.text


def test_unknown_options(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt option is named."""
    load_settings({"max_row": 5}, {})
    assert "unknown option ['max_row']" in caplog.text


def test_unusable_option_falls_back_to_the_environment() -> None:
    """The next source counts when the first is unusable."""
    assert load_settings({"max_rows": "x"}, {PREFIX + "CAPTURE_MAX_ROWS": "9"}).max_rows == 9


def test_empty_is_unset(caplog: pytest.LogCaptureFixture) -> None:
    """An empty variable is as none, as everywhere in OpenTelemetry."""
    assert load_settings({}, {PREFIX + "CAPTURE_MAX_ROWS": " ", PREFIX + "MODEL_NAME": ""}) == Settings()
    assert not caplog.records


def test_capture_hook_is_imported_when_called() -> None:
    """A hook named by its place is imported at its first call."""
    hook = load_settings({"capture_hook": "json:dumps"}, {}).capture_hook
    assert isinstance(hook, CaptureHook)
    assert repr(hook) == "CaptureHook('json:dumps')"
    assert hook({"a": 1}) == '{"a": 1}'
    assert load_settings({"capture_hook": print}, {}).capture_hook is print


def test_instrumentor_names_its_configuration() -> None:
    """OpenTelemetry's declarative configuration finds the options by this attribute."""
    assert SklearnInstrumentor.configuration is Options


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """A receiver."""
    with OtlpSink() as receiver:
        yield receiver


_PROGRAM = "from tests.instrumentation.apps.model import MODEL, X\nMODEL.predict(X[:1])\n"


def _write_configuration(path: Path, sink: OtlpSink, ours: dict[str, Any]) -> None:
    exporter = {"otlp_http": {"endpoint": f"{sink.endpoint}/v1/traces"}}
    configuration = {
        "file_format": "1.0",
        "tracer_provider": {"processors": [{"batch": {"exporter": exporter}}]},
        "instrumentation/development": {"python": {"mlspan_sklearn": ours}},
    }
    path.write_text(json.dumps(configuration))


def test_declarative_configuration(sink: OtlpSink, tmp_path: Path) -> None:
    """A program under OTEL_CONFIG_FILE has its SDK and our options from there."""
    path = tmp_path / "otel.json"
    ours = {"model_name": "from-file", "model_version": "3", "operations": ["predict"], "deny": ["x1"], "max_rows": 5}
    _write_configuration(path, sink, ours)
    run(sink, [sys.executable, "-c", _PROGRAM], OTEL_CONFIG_FILE=str(path))
    (span,) = sink.wait(lambda spans: len(spans) >= 1)
    assert span.name == "predict from-file"
    assert span.attributes["ml.model.version"] == "3"
    assert span.scope_attributes["ml.feature.names"] == ["x0", "x2"]


def test_environment_under_opentelemetry_instrument(sink: OtlpSink) -> None:
    """Two variables and opentelemetry-instrument are enough."""
    run(
        sink,
        [sys.executable, "-c", _PROGRAM],
        OTEL_INSTRUMENTATION_ML_MODEL_NAME="fraud-model",
        OTEL_INSTRUMENTATION_ML_MODEL_VERSION="7",
    )
    spans = sink.wait(lambda spans: len(spans) >= 2)
    assert [span.name for span in spans] == ["fit fraud-model", "predict fraud-model"]
    assert type(spans[1].attributes["ml.payload"]) is bytes
