"""What importing mlspan costs the application: its own package and nothing heavy."""

import importlib
import importlib.resources
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["mlspan", "mlspan_processor", "mlspan_exporters"])
def test_packages_import(name: str) -> None:
    """All three packages of the distribution are there, typed."""
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert importlib.resources.files(name).joinpath("py.typed").is_file()


@pytest.mark.parametrize("modules", ["mlspan", "mlspan, mlspan.capture, mlspan.fingerprint, mlspan.hooks.sklearn"])
def test_import_loads_nothing_heavy(modules: str) -> None:
    """Neither the other packages nor any framework is loaded before the user's own code does it."""
    heavy = {
        *("mlspan_processor", "mlspan_exporters", "sklearn", "torch", "pandas", "polars", "pyarrow", "scipy"),
        *("xgboost", "lightgbm", "joblib", "google.protobuf", "grpc", "pydantic", "opentelemetry.sdk"),
    }
    code = f"import {modules}, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert "mlspan" in loaded
    assert heavy.isdisjoint(loaded)


def test_names_on_the_wire_load_no_numpy_user() -> None:
    """The processor pays for mlspan when it reads the names: no hook and no wrapper is loaded for that."""
    code = "import mlspan.semconv.attributes, mlspan.payload, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not [name for name in loaded if name.startswith(("mlspan.hooks.sklearn", "mlspan.reference"))]
