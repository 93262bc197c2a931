"""Compiled, scripted, traced, exported and quantised models: one span each, and the same graphs as without us."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mlspan
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Mlp, Outer

X = torch.arange(12.0).reshape(3, 4)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """torch warns of its own deprecations; dynamo begins anew."""
    with warnings.catch_warnings():
        for category in (FutureWarning, UserWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        yield
        torch._dynamo.reset()


def _graphs() -> tuple[int, int]:
    """Graphs compiled so far, and graph breaks."""
    counters = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


@pytest.mark.parametrize("when", ["before", "after"])
def test_compile(recorder: Recorder, when: str) -> None:
    """A compiled model is one span a call, with one graph and no break, whichever of the two came first."""
    model = Outer().eval()
    if when == "before":
        compiled = torch.compile(model, fullgraph=True, backend="eager")
    mlspan.instrument(tracer_provider=recorder.provider)
    if when == "after":
        compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        results = [compiled(X) for _ in range(3)]
        plain = model(X)
    assert all(torch.equal(result, plain) for result in results)
    assert _graphs() == (1, 0)
    spans = recorder.spans()
    assert [span.name for span in spans] == ["predict Outer"] * 4
    assert len({(span.attributes or {})["ml.model.version"] for span in spans}) == 1


def test_instrumenting_between_calls_compiles_nothing_anew(recorder: Recorder) -> None:
    """A model that was compiled and called keeps its graph when the hook comes and goes."""
    compiled = torch.compile(Outer().eval(), fullgraph=True, backend="eager")
    with torch.no_grad():
        compiled(X)
        mlspan.instrument(tracer_provider=recorder.provider)
        compiled(X)
        mlspan.uninstrument()
        compiled(X)
    assert _graphs() == (1, 0)
    assert recorder.names() == ["predict Outer"]


def test_compile_in_place(hooked: Recorder) -> None:
    """`model.compile()` as well."""
    model = Outer().eval()
    model.compile(fullgraph=True, backend="eager")
    with torch.no_grad():
        model(X)
        model(X)
    assert hooked.names() == ["predict Outer"] * 2
    assert _graphs() == (1, 0)


def test_compiled_function(hooked: Recorder) -> None:
    """A compiled function that calls models is no module: no span, and no break for our sake."""
    model = Mlp().eval()

    @torch.compile(fullgraph=True, backend="eager")
    def score(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(x) * 2
        return found

    with torch.no_grad():
        score(X)
        score(X)
    assert _graphs() == (1, 0)
    assert hooked.names() == []


def test_compiled_function_with_breaks(hooked: Recorder) -> None:
    """Nor where the user's own code breaks the graph."""

    class Breaks(Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            return super().forward(x)

    model = Breaks().eval()
    score = torch.compile(lambda x: model(x) * 2, backend="eager")
    with torch.no_grad():
        assert torch.equal(score(X), model(X) * 2)
    assert hooked.names() == ["predict Breaks"]


def test_compile_of_an_instrumented_model(hooked: Recorder) -> None:
    """A model that `instrument_model` was given compiles into one graph; so do direct calls of `forward`."""
    model = mlspan.instrument_model(Outer().eval(), name="outer")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        compiled(X)
        compiled(X)
        torch.compile(model.forward, fullgraph=True, backend="eager")(X)
    assert _graphs()[1] == 0
    assert hooked.names()[:2] == ["predict outer"] * 2


def test_compile_training_step(hook: Callable[..., Recorder]) -> None:
    """A compiled step of training is named so."""
    recorder = hook(operations=["train"])
    compiled = torch.compile(Mlp(), fullgraph=True, backend="eager")
    compiled(X).sum().backward()
    assert recorder.names() == ["train Mlp"]


def test_compile_with_inductor(hooked: Recorder) -> None:
    """The default backend answers the same under the hook."""
    model = Mlp().eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        try:
            result = compiled(X)
        except Exception as error:
            if "compiler" in str(error).lower():
                pytest.skip(f"torch found no C++ compiler: {type(error).__name__}")
            raise
        torch.testing.assert_close(result, model(X))
    assert hooked.names() == ["predict Mlp"] * 2


@pytest.mark.parametrize("make", ["script", "trace", "freeze"])
def test_jit(recorder: Recorder, make: str) -> None:
    """Scripting and tracing make no spans; what comes out is called by the name of its class."""
    mlspan.instrument(tracer_provider=recorder.provider)
    model = Outer().eval()
    # Checking what was traced would call the model itself, which is a prediction as any other.
    jitted: Any = torch.jit.trace(model, X, check_trace=False) if make == "trace" else torch.jit.script(model)
    if make == "freeze":
        jitted = torch.jit.freeze(jitted)
    assert recorder.names() == []
    with torch.no_grad():
        torch.testing.assert_close(jitted(X), model(X))
    names = recorder.names()
    assert len(names) == 2
    assert names[1] == "predict Outer"
    if make != "freeze":
        assert names[0] == "predict Outer"


def test_jit_save_and_load(hooked: Recorder, tmp_path: Path) -> None:
    """A scripted model that was called is saved, and a loaded one is traced."""
    scripted = torch.jit.script(Outer().eval())
    scripted(X)
    scripted.save(str(tmp_path / "model.pt"))
    loaded = torch.jit.load(str(tmp_path / "model.pt"))
    assert torch.equal(loaded(X), scripted(X))
    versions = {(span.attributes or {})["ml.model.version"] for span in hooked.spans()}
    assert len(versions) == 1


@pytest.mark.parametrize("strict", [True, False])
def test_export(hooked: Recorder, strict: bool) -> None:
    """Export makes no span and the same graph; the exported module is a model."""
    model = Outer().eval()
    program = torch.export.export(model, (X,), strict=strict)
    # Older versions run what a strict export has captured, as a call of the model.
    runs = strict and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 15)
    assert len(hooked.names()) <= runs
    module = program.module()
    with torch.no_grad():
        torch.testing.assert_close(module(X), model(X))
    assert len(hooked.names()) == 2


def test_exported_with_gradients(hooked: Recorder, tmp_path: Path) -> None:
    """An exported program refuses `eval()`, and is a model without it, also when it was loaded, under one version."""
    program = torch.export.export(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), (X,))
    torch.export.save(program, tmp_path / "model.pt2")
    hooked.spans()
    for module in (program.module(), torch.export.load(tmp_path / "model.pt2").module()):
        with pytest.raises(NotImplementedError):
            module.eval()
        for _ in range(2):
            module(X)
    spans = hooked.spans()
    assert len(spans) == 4
    assert len({(span.attributes or {})["ml.model.version"] for span in spans}) == 1


def test_symbolic_trace(hooked: Recorder) -> None:
    """torch.fx sees the model as without us, and its graph module is a model."""
    model = Outer().eval()
    traced = torch.fx.symbolic_trace(model)
    assert hooked.names() == []
    assert torch.equal(traced(X), model(X))
    assert len(hooked.names()) == 2


def test_quantised(hooked: Recorder) -> None:
    """A dynamically quantised model is one, and its packed weights make its version."""
    versions = []
    for _ in range(2):
        model = torch.ao.quantization.quantize_dynamic(Outer().eval(), {nn.Linear}, dtype=torch.qint8)
        model(X)
        (span,) = hooked.spans()
        assert span.name == "predict Outer"
        versions.append((span.attributes or {})["ml.model.version"])
    assert versions[0] != versions[1]


def test_functional_transforms(hooked: Recorder) -> None:
    """vmap and grad over a model work as before, with a span that carries no values."""
    model = Mlp().eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(model)(X), model(X))
    gradients = torch.func.grad(lambda x: model(x).sum())(X)
    assert gradients.shape == X.shape
    assert set(hooked.names()) == {"predict Mlp"}


def test_differentiated_by_its_parameters(hooked: Recorder) -> None:
    """A model whose parameters are stood in for, at its very first call, answers as before."""
    model = Mlp().eval()
    values = {name: value.detach() for name, value in model.named_parameters()}
    gradients = torch.func.grad(lambda given: torch.func.functional_call(model, given, (X,)).sum())(values)
    assert {name: value.shape for name, value in gradients.items()} == {n: v.shape for n, v in values.items()}
    assert hooked.names() == ["predict Mlp"]


def test_fake_tensors(hooked: Recorder) -> None:
    """Under a dispatch mode (fake tensors, counters of operations) calls pass untouched."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode() as mode:
        model = Mlp().eval()
        assert model(mode.from_tensor(X)).shape == (3, 3)
    with FlopCounterMode(display=False) as counter:
        Mlp().eval()(X)
    assert counter.get_total_flops() == 2 * 3 * (4 * 8 + 8 * 3)
    assert hooked.names() == []


def test_dynamo_imported_after_the_hook() -> None:
    """The order of importing dynamo and instrumenting does not matter."""
    program = (
        "import torch, mlspan; mlspan.instrument(); import torch._dynamo as d\n"
        "m = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()).eval()\n"
        "c = torch.compile(m, fullgraph=True, backend='eager')\n"
        "with torch.no_grad(): c(torch.ones(1, 2)); c(torch.ones(1, 2))\n"
        "print(d.utils.counters['stats']['unique_graphs'], sum(d.utils.counters['graph_break'].values()))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
