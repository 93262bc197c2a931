"""Odd tensors in and out: a documented outcome, the same result, never an exception of ours."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tests.instrumentation.conftest import Recorder
from tests.torch.models import Answers, Mlp
from tests.torch.payloads import last

VALUES = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def _csr() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return VALUES.to_sparse_csr()


def _nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3), torch.ones(1)])


@pytest.mark.parametrize("rows", [3, 1])
@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64, torch.int8, torch.uint8],
)
def test_narrow_numbers(hooked: Recorder, dtype: torch.dtype, rows: int) -> None:
    """bfloat16 and float8 are read as float32, as input and as output."""
    x = VALUES[:rows].to(dtype)
    Answers(x).eval()(x)
    seen = last(hooked)
    assert np.array_equal(seen.cells, VALUES[:rows])
    assert seen.payload is not None
    assert np.array_equal(seen.payload.predictions, VALUES[:rows])


def test_booleans(hooked: Recorder) -> None:
    """Booleans are boolean columns."""
    x = VALUES > 2
    Answers(x).eval()(x)
    seen = last(hooked)
    assert seen.scope["ml.feature.types"] == ("boolean", "boolean")
    assert seen.cells.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_quantised(hooked: Recorder) -> None:
    """Quantised tensors are read dequantised, of sampled rows only."""
    for shape in ((300, 2), (300, 3, 8, 8)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = torch.quantize_per_tensor(torch.ones(shape), 0.5, 3, torch.quint8)
        Answers(x[:, :2] if len(shape) == 2 else torch.ones(300, 1)).eval()(x)
        seen = last(hooked)
        assert len(seen.cells) < 100
        assert (seen.cells[:, 0] == 1).all()


@pytest.mark.parametrize(
    ("x", "error", "rows"),
    [
        (VALUES.to_sparse(), "unsupported input: sparse tensor", 3),
        (_csr(), "unsupported input: sparse tensor", 3),
        (torch.empty(3, 2, device="meta"), "unsupported input: tensor without data", 3),
        (torch.ones(3, 2, dtype=torch.complex64), "unsupported input: complex tensor", 3),
        (torch.ones(()), "unsupported input: tensor without dimensions", 3),
        (_nested(), "unsupported input: nested tensor", 3),
        ([torch.ones(3, 5, 5), torch.ones(3, 4, 4)], None, 3),
        (None, "unsupported input: NoneType", 3),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_columns(hooked: Recorder, x: Any, error: str | None, rows: int) -> None:
    """Sparse, nested, complex, meta: no features, but the answers, and why."""
    result = torch.tensor([[0.5], [1.5], [2.5]])
    model = Answers(result).eval()
    for _ in range(2):
        assert model(x) is result
        seen = last(hooked)
        assert seen.attributes.get("ml.capture.error") == error
        assert seen.payload is not None
        assert seen.payload.predictions[:, 0].tolist() == [0.5, 1.5, 2.5]
        assert error is None or seen.names == ()


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 3, 8, 8), (2, 3, 0, 8), (2, 0, 4), (0,)])
def test_nothing_in_it(hooked: Recorder, shape: tuple[int, ...]) -> None:
    """Tensors without rows or columns are counted, and nothing breaks."""
    x = torch.ones(shape)
    model = Answers(torch.ones(shape[0], 2)).eval()
    for _ in range(2):
        model(x)
        seen = last(hooked)
        assert "ml.capture.error" not in seen.attributes or len(shape) == 1
        assert seen.attributes["ml.input.rows"] == (shape[0] if len(shape) > 1 else 1)


@pytest.mark.parametrize(
    "answer",
    [
        None, "text", 3.0, object(), {}, [], (), [1, 2, 3], {"a": None},
        torch.ones(()), torch.ones(5, 2), torch.ones(0, 2),
        torch.ones(3, 2, dtype=torch.complex64), VALUES.to_sparse(), torch.empty(3, 2, device="meta"),
        [{"boxes": torch.ones(4, 4)}, {"boxes": torch.ones(2, 4)}, {"boxes": torch.ones(0, 4)}], torch.ones(3, 0),
    ],
)  # fmt: skip
def test_outputs_that_are_no_answers(hooked: Recorder, answer: Any) -> None:
    """Such outputs are not captured, the input is, and the result is the very object."""
    model = Answers(answer).eval()
    for _ in range(2):
        assert model(VALUES) is answer
        seen = last(hooked)
        assert seen.payload is not None
        assert seen.cells.shape == (3, 2)
        assert not seen.payload.predictions.size
        assert not {"ml.prediction.class", "ml.prediction.value"} & set(seen.attributes)


def test_first_odd_then_usual(hooked: Recorder) -> None:
    """A model whose first output told nothing is understood at the first that does."""
    model = Answers(None).eval()
    model(VALUES)
    model.answer = VALUES.softmax(-1)
    model(VALUES)
    seen = last(hooked)
    assert seen.scope["ml.prediction.classes"] == ("0", "1")


@pytest.mark.parametrize("view", ["negative", "conjugate", "expanded", "flipped", "subclass", "parameter"])
@pytest.mark.parametrize("rows", [1, 3])
def test_views(hooked: Recorder, view: str, rows: int) -> None:
    """Views that numpy does not know, expanded tensors and subclasses are read."""

    class Tagged(torch.Tensor):
        pass

    base = VALUES[:rows]
    x = {
        "negative": lambda: torch._neg_view(-base),
        "conjugate": lambda: torch.complex(torch.zeros_like(base), -base).conj().imag,
        "expanded": lambda: base[:, :1].expand(rows, 2),
        "flipped": lambda: base.flip(1),
        "subclass": lambda: base.as_subclass(Tagged),
        "parameter": lambda: torch.nn.Parameter(base.clone()),
    }[view]()
    Answers(x).eval()(x)
    seen = last(hooked)
    expected = torch.Tensor(x.detach().resolve_neg().clone().as_subclass(torch.Tensor))
    assert np.array_equal(seen.cells, expected)
    assert seen.payload is not None
    assert np.array_equal(seen.payload.predictions, expected)


def test_overwritten_at_once(hooked: Recorder) -> None:
    """Input and output may be overwritten in place or freed as soon as the call is over, or within it."""

    class Overwrites(Answers):
        def forward(self, x: torch.Tensor) -> Any:
            x.fill_(-1)
            return self.answer

    for shape in ((3, 2), (1, 2), (3, 3, 4, 4), (1, 3, 4, 4), (3, 5, 2)):
        answer = torch.full((shape[0], 1), 2.0)
        x = torch.full(shape, 7.0)
        result = Overwrites(answer).eval()(x)
        result.fill_(9.0)
        x.resize_(0)
        seen = last(hooked)
        place = "x0" if len(shape) == 2 else "channel0.mean" if len(shape) == 4 else "mean"
        names = seen.names or ("x0", "x1")
        assert (seen.cells[:, names.index(place)] == 7).all()
        assert seen.payload is not None
        assert (seen.payload.predictions == 2).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3.4e38])
@pytest.mark.parametrize("rows", [1, 3])
def test_values_that_are_no_numbers(hooked: Recorder, value: float, rows: int) -> None:
    """Infinities and NaN go in and come out without a warning."""
    for shape in ((rows, 4), (rows, 3, 4, 4), (rows, 3, 4)):
        for output in ("logits", "probabilities", "log_probabilities", "values", "auto"):
            import mlspan

            model = mlspan.instrument_model(Answers(torch.full((rows, 2), value)).eval(), output=output)
            for _ in range(2):
                model(torch.full(shape, value))
                assert last(hooked).attributes["ml.input.rows"] == rows


def test_a_tensor_class_with_a_will_of_its_own(hooked: Recorder) -> None:
    """A tensor whose class answers every operation by raising is passed by."""

    class Stubborn(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise RuntimeError("no")

    x = VALUES.as_subclass(Stubborn)
    result = torch.ones(3, 1)
    assert Answers(result).eval()(x) is result
    assert Mlp().eval()(torch.ones(1, 4)).shape == (1, 3)
