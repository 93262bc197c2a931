"""Collected only where torch is installed: `make test` has none, `make test-torch` has."""

import importlib.util
import os

# Before anything of ours is imported: a failure of ours must fail the test.
os.environ["MLSPAN_RAISE"] = "true"

from collections.abc import Iterator
from pathlib import Path

import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None
_HERE = Path(__file__).parent

if not HAS_TORCH:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    import mlspan
    from mlspan.deferred import deferred
    from tests.instrumentation.conftest import Recorder, hook, hooked, recorder

    __all__ = ["Recorder", "hook", "hooked", "recorder"]

    @pytest.fixture(autouse=True)
    def _same_each_time() -> Iterator[None]:
        """One seed and no leftovers: the hook is off after each test."""
        torch.manual_seed(0)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            mlspan.uninstrument()
            deferred.drain()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here carries the marker `torch`."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker("torch")
