"""What importing and instrumenting load: nothing heavy, and nothing of the processor."""

import subprocess
import sys

import pytest

HEAVY = {
    "sklearn",
    "torch",
    "pandas",
    "polars",
    "pyarrow",
    "scipy",
    "joblib",
    "xgboost",
    "lightgbm",
    "onnxruntime",
    "google",
    "grpc",
    "mlspan_processor",
    "mlspan_exporters",
}


def _loaded(program: str) -> set[str]:
    """Top-level modules that a program has loaded at its end."""
    code = f"{program}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import mlspan.semconv.attributes",
        "import mlspan; mlspan.instrument()",
        "from mlspan.hooks.sklearn import SklearnInstrumentor; SklearnInstrumentor().instrument()",
        "import mlspan; mlspan.instrument(); mlspan.prediction_context('a'); mlspan.feedback('a', 'b')",
    ],
)
def test_nothing_heavy(program: str) -> None:
    """Neither importing nor instrumenting loads a framework, or the processor."""
    assert _loaded(program) & HEAVY == set()


def test_names_are_cheap() -> None:
    """The processor's way to the names loads neither the hooks nor OpenTelemetry's API."""
    assert not {"opentelemetry", "wrapt"} & _loaded("import mlspan.semconv.attributes")
