"""One span for each outermost call of a module, and nothing else changed."""

import copy
import pickle
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable

import pytest
import torch
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from torch import nn

import mlspan
from mlspan.hooks.torch import TorchInstrumentor
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Mlp, Outer, Raises, softmax_net

X = torch.arange(12.0).reshape(3, 4)


def test_one_span(hooked: Recorder) -> None:
    """A call of a model of several layers is one span, with its rows, class and framework."""
    model = Outer().eval()
    with torch.no_grad():
        model(X)
    (span,) = hooked.spans()
    assert span.name == "predict Outer"
    assert span.attributes is not None
    assert span.attributes["ml.operation.name"] == "predict"
    assert span.attributes["ml.input.rows"] == 3
    assert span.attributes["ml.input.columns"] == 4
    assert span.instrumentation_scope is not None
    scope = span.instrumentation_scope.attributes
    assert scope is not None
    assert scope["ml.model.class"] == "tests.torch.models.Outer"
    assert scope["ml.framework.name"] == "torch"
    assert scope["ml.framework.version"] == torch.__version__
    assert scope["ml.feature.names"] == ("x0", "x1", "x2", "x3")


def test_parent_and_times(hooked: Recorder) -> None:
    """The span lies below the current one, also the first one of a model, and within its times."""
    model = softmax_net()
    tracer = hooked.provider.get_tracer("t")
    for _ in range(2):
        with tracer.start_as_current_span("request"):
            model(X)
        request, predict = sorted(hooked.spans(), key=lambda span: span.parent is not None)
        assert predict.parent is not None
        assert request.context is not None
        assert predict.parent.span_id == request.context.span_id
        assert None not in (predict.start_time, request.start_time, predict.end_time, request.end_time)
        assert request.start_time <= predict.start_time <= predict.end_time <= request.end_time  # type: ignore[operator]


def test_modules_called_within_one_see_its_span(hooked: Recorder) -> None:
    """What runs within the call finds the model's span as the current one, once its outputs are known."""
    seen = []

    class Looks(Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(trace.get_current_span().get_span_context().span_id)
            return super().forward(x)

    model = Looks().eval()
    model(X)
    hooked.spans()
    model(X)
    (span,) = hooked.spans()
    assert span.context is not None
    assert seen[1] == span.context.span_id


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_modes(hooked: Recorder, mode: Callable[[], torch.no_grad]) -> None:
    """Evaluation under any gradient mode is a prediction."""
    model = Mlp().eval()
    with mode():
        result = model(X)
    assert hooked.names() == ["predict Mlp"]
    assert result.requires_grad is (mode is torch.enable_grad)
    if result.requires_grad:
        result.sum().backward()
        assert model.out.weight.grad is not None


def test_training_is_no_span_by_default(hooked: Recorder) -> None:
    """Steps of training are no spans, and what comes out of them is a model of another version."""
    model = Mlp()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model.eval()(X)
    for _ in range(3):
        model.train()
        optimiser.zero_grad()
        nn.CrossEntropyLoss()(model(X), torch.tensor([0, 1, 2])).backward()
        optimiser.step()
    model.eval()(X)
    before, after = hooked.spans()
    assert [before.name, after.name] == ["predict Mlp"] * 2
    assert before.attributes is not None
    assert after.attributes is not None
    assert before.attributes["ml.model.version"] != after.attributes["ml.model.version"]


def test_training_on_request(hook: Callable[..., Recorder]) -> None:
    """`operations` with "train" makes a step's forward call a span of that name, without rows' values."""
    recorder = hook(operations=["predict", "train"])
    model = Mlp()
    model(X).sum().backward()
    (span,) = recorder.spans()
    assert span.name == "train Mlp"
    assert span.attributes is not None
    assert span.attributes["ml.input.rows"] == 3
    assert "ml.payload" not in span.attributes
    assert "ml.model.version" not in span.attributes


def test_training_mode_without_gradients_is_a_prediction(hooked: Recorder) -> None:
    """Dropout at prediction time (Monte Carlo) is a prediction still."""
    with torch.no_grad():
        Mlp().train()(X)
    assert hooked.names() == ["predict Mlp"]


def test_optimiser_closure(hooked: Recorder) -> None:
    """A closure that an optimiser calls again and again is training."""
    model = Mlp()
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> float:
        optimiser.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return float(loss.item())

    optimiser.step(closure)
    assert hooked.names() == []


@pytest.mark.parametrize(
    "module",
    [nn.CrossEntropyLoss(weight=torch.ones(4)), nn.Softmax(-1), nn.Flatten(), nn.Sequential(nn.ReLU(), nn.Dropout())],
)
def test_what_is_no_model(hooked: Recorder, module: nn.Module) -> None:
    """Losses, activations and other modules without parameters are no spans."""
    with torch.no_grad():
        module(X, X) if isinstance(module, nn.CrossEntropyLoss) else module(X)
    assert hooked.names() == []


def test_transforms_are_no_models(hooked: Recorder) -> None:
    """Nor are the transforms of torchvision."""
    transforms = pytest.importorskip("torchvision.transforms")
    transforms.Normalize([0.5], [0.5])(torch.ones(1, 4, 4))
    assert hooked.names() == []


def test_include_and_exclude(hook: Callable[..., Recorder]) -> None:
    """The user's patterns on classes come first; what an excluded class calls is looked at instead."""
    recorder = hook(torch_include=["torch.nn.modules.activation.*"], torch_exclude=["*.Outer"])
    with torch.no_grad():
        nn.ReLU()(X)
        Outer().eval()(X)
    assert recorder.names() == ["predict ReLU", "predict Mlp", "predict Sequential"]


def test_operations(hook: Callable[..., Recorder]) -> None:
    """Without "predict" among the operations nothing is traced."""
    recorder = hook(operations=["fit"])
    softmax_net()(X)
    assert recorder.names() == []


def test_suppressed(hooked: Recorder) -> None:
    """`suppress_instrumentation` holds for the call and all within."""
    with suppress_instrumentation():
        Outer().eval()(X)
    assert hooked.names() == []


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), TraceIdRatioBased(0.0)])
def test_sampled_out(hook: Callable[..., Recorder], sampler: object) -> None:
    """A refused call is none of ours; ids of a prediction context are empty."""
    recorder = hook(sampler=sampler)
    with mlspan.prediction_context("order") as context:
        for _ in range(3):
            Mlp().eval()(X)
    assert recorder.names() == []
    assert list(context.ids) == []


def test_below_an_unsampled_span(hooked: Recorder) -> None:
    """A request that was not sampled has no model spans either."""
    parent = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(0))
    with trace.use_span(trace.NonRecordingSpan(parent)):
        Mlp().eval()(X)
    assert hooked.names() == []
    Mlp().eval()(X)
    assert hooked.names() == ["predict Mlp"]


def test_ratio_sampler(hook: Callable[..., Recorder]) -> None:
    """With a sampler that takes some calls, those carry their rows."""
    recorder = hook(sampler=TraceIdRatioBased(0.5))
    model = softmax_net()
    for _ in range(60):
        model(X)
    spans = recorder.spans()
    assert 5 < len(spans) < 55
    assert all("ml.payload" in (span.attributes or {}) for span in spans)


def test_exceptions(hooked: Recorder) -> None:
    """The user's exception passes, with a traceback that shows his frames and torch's alone."""
    with pytest.raises(RuntimeError) as caught:
        Raises().eval()(X)
    (span,) = hooked.spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "RuntimeError"
    assert span.status.status_code.name == "ERROR"
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    mlspan.uninstrument()
    with pytest.raises(RuntimeError) as plain:
        Raises().eval()(X)
    files = {frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)}
    assert not [name for name in files if "mlspan" in name.replace("tests", "").rpartition("instrumentation")[2]]
    assert frames == [frame.name for frame in traceback.extract_tb(plain.value.__traceback__)]


def test_uninstrument_restores_exactly(recorder: Recorder) -> None:
    """The attribute is the same object as before, and models told of have their own `forward` again."""
    before = vars(nn.Module)["__call__"]
    model = Mlp()
    mlspan.instrument(tracer_provider=recorder.provider)
    assert vars(nn.Module)["__call__"] is not before
    assert nn.Module.__call__.__name__ == before.__name__
    mlspan.instrument_model(model, name="m")
    assert "forward" in vars(model)
    mlspan.uninstrument()
    assert vars(nn.Module)["__call__"] is before
    assert "forward" not in vars(model)


def test_instrumentor_alone(recorder: Recorder) -> None:
    """Each hook comes and goes by itself; the other one stays."""
    before = vars(nn.Module)["__call__"]
    mlspan.instrument(tracer_provider=recorder.provider)
    TorchInstrumentor().uninstrument()
    assert vars(nn.Module)["__call__"] is before
    assert mlspan.runtime.current() is not None
    TorchInstrumentor().instrument(tracer_provider=recorder.provider)
    Mlp().eval()(X)
    assert recorder.names() == ["predict Mlp"]


def test_direct_forward(hooked: Recorder) -> None:
    """After `instrument_model` a direct call of `forward` is one span, and so is a usual call."""
    model = mlspan.instrument_model(Outer().eval(), name="outer", version="3")
    model.forward(X)
    model(X)
    assert hooked.names() == ["predict outer"] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        scripted = torch.jit.script(model)
    assert torch.equal(scripted(X), model(X))


def test_direct_forward_survives_copies(hooked: Recorder) -> None:
    """A model told of is pickled, copied and saved as any other."""
    model = mlspan.instrument_model(Outer().eval(), name="outer")
    copied = copy.deepcopy(model)
    loaded = pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        for other in (copied, loaded):
            assert torch.equal(other(X), model.forward(X))
            other.tail[1].weight += 1
            assert not torch.equal(other.forward(X), model.forward(X))
    names = hooked.names()
    assert names.count("predict outer") == 4
    assert names.count("predict Outer") == 3  # what was told holds for the object alone: forward of one copy is bare


def test_user_hooks_run_once(hooked: Recorder) -> None:
    """Forward hooks and pre-hooks of the user's, on modules and global ones, run as before and may change values."""
    model = Outer().eval()
    calls: list[str] = []

    def before(_: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        calls.append("pre")
        return (args[0] + 1,)

    handles = [
        model.register_forward_pre_hook(before),
        model.inner.register_forward_hook(lambda *_: calls.append("inner")),
        nn.modules.module.register_module_forward_hook(lambda *_: calls.append("global")),
    ]
    result = model(X)
    for handle in handles:
        handle.remove()
    assert torch.equal(result, model(X + 1))
    assert (calls.count("pre"), calls.count("inner")) == (1, 1)
    assert calls.count("global") == 7
    assert hooked.names() == ["predict Outer"] * 2


def test_torch_is_not_imported_before_the_user() -> None:
    """Instrumenting loads no torch; importing it afterwards is enough."""
    program = (
        "import sys, mlspan; mlspan.instrument(); assert 'torch' not in sys.modules\n"
        "import torch; print(torch.nn.Module.__call__.__closure__ is not None)\n"
        "mlspan.uninstrument(); print(torch.nn.Module.__call__.__closure__ is not None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_hook_taken_off_before_torch_comes() -> None:
    """While another framework's hook stays on, torch that is imported later is left as it is."""
    program = (
        "from mlspan.hooks.sklearn import SklearnInstrumentor\nfrom mlspan.hooks.torch import TorchInstrumentor\n"
        "SklearnInstrumentor().instrument(); TorchInstrumentor().instrument(); TorchInstrumentor().uninstrument()\n"
        "import torch; print(torch.nn.Module.__call__.__closure__ is not None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
