"""Modules that a model of another kind holds: which version that model is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mlspan
from mlspan.fingerprint import MAX_TENSOR_VALUES, fingerprint
from mlspan.guard import failures
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Mlp

X = torch.arange(12.0).reshape(3, 4)
FORMS: dict[str, Callable[[nn.Module], Any]] = {
    "eager": lambda module: module,
    "bfloat16": lambda module: module.bfloat16(),
    "complex": lambda module: [value.to(torch.complex64) for value in module.state_dict().values()],
    "quantised": lambda module: torch.ao.quantization.quantize_dynamic(module, {nn.Linear}),
    "scripted": torch.jit.script,
    "traced": lambda module: torch.jit.trace(module, X),
    "exported": lambda module: torch.export.export(module, (X,)).module(),
}


class Service:
    """A model that is neither an estimator nor a module."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def predict(self, rows: Any) -> Any:
        """The module's answers."""
        return self.held(rows).detach().numpy()


def seeded(seed: int) -> nn.Module:
    """A module with parameters of its own."""
    torch.manual_seed(seed)
    return Mlp().eval()


@pytest.mark.filterwarnings("ignore")  # torch's, of what it no longer likes
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_modules(form: str) -> None:
    """The version is that of the parameters, whatever they are stored as."""
    first, same, other = (fingerprint(Service(FORMS[form](seeded(seed)))) for seed in (0, 0, 1))
    assert first == same != other


def test_tensors_without_values() -> None:
    """They count by type and shape, and nothing fails."""
    before = failures()
    empty, wider = (fingerprint(torch.empty(width, device="meta")) for width in (2, 3))
    assert empty != wider
    assert len(fingerprint(torch.eye(2).to_sparse())) == 12
    assert failures() == before


def test_large_tensors() -> None:
    """Evenly spread values of a large tensor are read, not all."""
    zeros, ones = torch.zeros(10 * MAX_TENSOR_VALUES), torch.ones(10 * MAX_TENSOR_VALUES)
    spread = zeros.clone()
    spread[1] = 1
    assert fingerprint(zeros) == fingerprint(spread) != fingerprint(ones)


def test_a_module_that_is_replaced(hooked: Recorder) -> None:
    """A service that puts another module in its module's place is another version."""
    model = mlspan.instrument_model(Service(seeded(0)), name="service")
    model.predict(X)
    model.predict(X)
    model.held = seeded(1)
    model.predict(X)
    versions = [(span.attributes or {})["ml.model.version"] for span in hooked.spans()]
    assert versions[0] == versions[1] != versions[2]
