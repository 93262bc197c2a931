"""Which version of a module it is, and that its state is not touched and not kept."""

import copy
import gc
import io
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mlspan
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Mlp

X = torch.arange(12.0).reshape(3, 4)


def test_names_versions_and_copies(hook: Callable[..., Recorder]) -> None:
    """Names and versions: the user's, then the settings', then class and parameters; a copy has the same version."""
    recorder = hook()
    model = Mlp().eval()
    with torch.no_grad():
        model(X)
        copy.deepcopy(model)(X)
        model.out.bias += 1
        model(X)
    versions = [span.attributes["ml.model.version"] for span in recorder.spans() if span.attributes]
    assert versions[0] == versions[1] != versions[2]
    recorder = hook(model_version="9")
    mlspan.uninstrument()
    recorder = hook(model_name="env", model_version="9")
    model(X)
    mlspan.instrument_model(model, name="mine", version="10")
    model(X)
    assert [(span.name, (span.attributes or {})["ml.model.version"]) for span in recorder.spans()] == [
        ("predict env", "9"),
        ("predict mine", "10"),
    ]


def test_loaded_parameters_are_another_version(hooked: Recorder) -> None:
    """`load_state_dict` is noticed at the next call, also when it replaces the parameters."""
    model, other = Mlp().eval(), Mlp().eval()
    model(X)
    model.load_state_dict(other.state_dict())
    model(X)
    other(X)
    model.load_state_dict(Mlp().state_dict(), assign=True)
    model(X)
    versions = [(span.attributes or {})["ml.model.version"] for span in hooked.spans()]
    assert versions[0] != versions[1] == versions[2] != versions[3]


def test_parameters_that_live_on_elsewhere(hooked: Recorder) -> None:
    """Two sets of parameters that a model is given in turn are two versions; those of one functional call are none."""
    model = Mlp().eval()
    both = [{name: nn.Parameter(value.clone()) for name, value in Mlp().state_dict().items()} for _ in range(2)]
    for at in (0, 1, 0):
        model.load_state_dict(both[at], assign=True)
        model(X)
    torch.func.functional_call(model, {name: value.detach() + 1 for name, value in both[1].items()}, (X,))
    versions = [(span.attributes or {})["ml.model.version"] for span in hooked.spans()]
    assert versions[0] != versions[1]
    assert versions[0] == versions[2] == versions[3]


@pytest.mark.filterwarnings("ignore")  # torch's, of the age of its own scripts
@pytest.mark.parametrize("make", [lambda model: model, torch.jit.script, lambda model: torch.jit.trace(model, X)])
def test_a_version_is_made_once(
    hooked: Recorder, monkeypatch: pytest.MonkeyPatch, make: Callable[[nn.Module], Any]
) -> None:
    """Of parameters that stay as they are, whatever class of module holds them."""
    made: list[Any] = []

    def fingerprint(model: Any) -> str:
        made.append(model)
        return "fp-0"

    model = make(Mlp().eval())
    monkeypatch.setattr("mlspan.hooks.torch_calls.fingerprint", fingerprint)
    for _ in range(3):
        model(X)
    assert len(made) == 1
    assert {span.name for span in hooked.spans()} == {"predict Mlp"}


def test_new_batch_statistics_are_another_version(hooked: Recorder) -> None:
    """What `update_bn` changes without gradients is noticed when it is over, and once; no batch is a version."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model.eval()(X)
    for scale in (1, 2):
        torch.optim.swa_utils.update_bn([X * scale, X + 1, X * 3], model)
        model.eval()(X)
        model(X)
    spans = hooked.spans()
    assert {span.name for span in spans} == {"predict Sequential"}
    first, *update, second, third, b1, b2, b3, fourth, fifth = [(s.attributes or {})["ml.model.version"] for s in spans]
    assert [*update, b1, b2, b3] == [first] * 3 + [second] * 3
    assert first != second == third
    assert second != fourth == fifth != first


def test_first_called_in_training_mode(hooked: Recorder) -> None:
    """The version that such a call has is of the statistics before it; new parameters count at once."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        model(X)
        model[0].weight.add_(1.0)
        model(X)
        model.eval()(X)
    versions = [(span.attributes or {})["ml.model.version"] for span in hooked.spans()]
    assert len(set(versions)) == 3


def test_dropout_in_training_mode_is_one_version(hooked: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without persistent buffers a call in training mode without gradients changes nothing, and nothing is read."""
    made: list[Any] = []

    def count(model: Any) -> str:
        made.append(model)
        return f"fp-{len(made)}"

    monkeypatch.setattr("mlspan.hooks.torch_calls.fingerprint", count)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    with torch.no_grad():
        for _ in range(3):
            model(X)
        model.eval()(X)
    assert len(made) == 1


def test_lazy_parameters(hooked: Recorder) -> None:
    """A model whose parameters get their values at the first call has a version from the second one on."""
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2)).eval()
    with torch.no_grad():
        for _ in range(3):
            model(X)
    versions = [(span.attributes or {}).get("ml.model.version") for span in hooked.spans()]
    assert versions[0] is None
    assert isinstance(versions[1], str)
    assert versions[2] == versions[1]


def test_state_is_untouched(hooked: Recorder) -> None:
    """State, attributes, random state, version counters and autocast are what they were."""
    model = Mlp().eval()
    keys, own = list(model.state_dict()), set(vars(model))
    state, version = torch.get_rng_state(), (X._version, model.out.weight._version)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(X)
        assert result.dtype is torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert (X._version, model.out.weight._version) == version
    assert list(model.state_dict()) == keys
    assert set(vars(model)) == own


def test_save_and_load(hooked: Recorder) -> None:
    """torch.save of a whole model that was called holds nothing of ours, and loads."""
    model = Mlp().eval()
    model(X)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"mlspan" not in buffer.getvalue()
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(X), model(X))


def test_nothing_is_kept_alive(hooked: Recorder) -> None:
    """Models, inputs and results die with the user's last reference."""
    model, x = Mlp().eval(), X.clone()
    result = model(x)
    references = [weakref.ref(thing) for thing in (model, x, result, model.out.weight)]
    del model, x, result
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
    running = mlspan.runtime.current()
    assert running is not None
    assert not running.emitter.models.entries
