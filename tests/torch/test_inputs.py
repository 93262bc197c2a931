"""What is captured of a module's input: columns as they are, everything else as statistics and a projection."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import mlspan
from mlspan.inputs.summaries import POSITIONS, image, signs, spread, vector
from tests.instrumentation.conftest import Recorder
from tests.torch.models import Answers, Mlp, conv_net
from tests.torch.payloads import last

ANY = Answers(torch.zeros(3, 1)).eval()


def test_columns(hooked: Recorder) -> None:
    """A matrix of numbers is its columns, of any dtype that numpy has, contiguous or not."""
    values = torch.arange(12.0).reshape(3, 4)
    wide = torch.zeros(3, 8)
    wide[:, ::2] = values
    for x in (values, values.double(), values.half(), values.long(), wide[:, ::2], values.t().contiguous().t()):
        ANY(x)
        assert np.array_equal(last(hooked).cells, values.numpy())


def test_named_columns(hooked: Recorder) -> None:
    """The user's names hold, deny patterns too, and wide inputs with names are columns."""
    model = mlspan.instrument_model(Answers(torch.zeros(3, 1)).eval(), feature_names=["a", "b", "c", "d"])
    model(torch.ones(3, 4))
    assert last(hooked).names == ("a", "b", "c", "d")
    mlspan.instrument_model(model, feature_names=[f"f{at}" for at in range(300)])
    model(torch.ones(3, 300))
    assert last(hooked).names[299] == "f299"


def test_deny(hook: Callable[..., Recorder]) -> None:
    """Denied features stay, columns and summaries alike."""
    recorder = hook(deny=["x1", "projection*"])
    ANY(torch.ones(3, 4))
    assert last(recorder).names == ("x0", "x2", "x3")
    for rows in (1, 3):
        Answers(torch.zeros(rows, 1)).eval()(torch.ones(rows, 3, 8, 8))
        seen = last(recorder)
        assert "norm" in seen.names
        assert not [name for name in seen.names if "projection" in name]
        assert seen.cells.shape == (rows, 13)


def test_one_row_without_a_batch(hooked: Recorder) -> None:
    """One dimension of numbers is one row, and its answer too."""
    Mlp().eval()(torch.ones(4))
    seen = last(hooked)
    assert (seen.attributes["ml.input.rows"], seen.attributes["ml.input.columns"]) == (1, 4)
    assert seen.payload is not None
    assert seen.payload.predictions.shape == (1, 3)


def test_sampled_rows(hooked: Recorder) -> None:
    """Of many rows a bounded sample is captured, the answers of the same rows with it."""
    x = torch.arange(5000.0).reshape(-1, 1)
    nn.Sequential(nn.Identity(), _Double()).eval()(x)
    seen = last(hooked)
    assert seen.payload is not None
    assert seen.payload.total_rows == 5000
    assert len(seen.cells) == 64 + 5000 // 16
    assert seen.payload.indices is not None
    assert np.array_equal(seen.cells[:, 0], seen.payload.indices)
    assert np.array_equal(seen.payload.predictions, 2 * seen.cells)


class _Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "height_width_channels", "uint8"])
@pytest.mark.parametrize("rows", [1, 3])
def test_images(hooked: Recorder, layout: str, rows: int) -> None:
    """Images are statistics of each channel, the same however they lie in memory."""
    values = torch.rand(rows, 3, 16, 16)
    values[:, 1] += 10
    if layout == "uint8":
        values = (values * 10).round()
    x = {
        "contiguous": values,
        "channels_last": values.to(memory_format=torch.channels_last),
        "sliced": torch.cat((values, values), 3)[..., :16],
        "height_width_channels": values.permute(0, 2, 3, 1).contiguous(),
        "uint8": values.to(torch.uint8),
    }[layout]
    model = Answers(torch.zeros(rows, 1)).eval()
    for _ in range(2):  # the second time along the quick way
        model(x)
        seen = last(hooked)
        assert seen.names[:5] == ("channel0.mean", "channel0.std", "channel0.min", "channel0.max", "channel1.mean")
        assert len(seen.names) == 3 * 4 + 1 + 16
        at = spread(16, 13)
        grid = values.double().numpy()[:, :, at[:, None], at]
        for channel in range(3):
            part = grid[:, channel].reshape(rows, -1)
            for name in ("mean", "std", "min", "max"):
                expected = getattr(part, name)(axis=1)
                assert np.allclose(seen.feature(f"channel{channel}.{name}"), expected, rtol=1e-5), name
        flat = grid.reshape(rows, -1)
        assert np.allclose(seen.feature("norm"), np.sqrt(np.square(flat).mean(axis=1)), rtol=1e-5)
        projected = flat @ signs(np.arange(flat.shape[1], dtype=np.uint64)) / np.sqrt(flat.shape[1])
        assert np.allclose(seen.cells[:, -16:], projected, rtol=1e-4, atol=1e-4)


def test_drift_shows_in_images(hooked: Recorder) -> None:
    """Darker images and swapped channels move features that unchanged ones do not."""
    model = Answers(torch.zeros(64, 1)).eval()
    base = torch.rand(64, 3, 24, 24) * torch.tensor([1.0, 0.5, 0.2]).reshape(1, 3, 1, 1)

    def features(x: torch.Tensor) -> dict[str, float]:
        model(x)
        seen = last(hooked)
        return dict(zip(seen.names, seen.cells.mean(axis=0).tolist(), strict=True))

    plain, dark, swapped = features(base), features(base * 0.7), features(base.flip(1))
    again = features(torch.rand(64, 3, 24, 24) * torch.tensor([1.0, 0.5, 0.2]).reshape(1, 3, 1, 1))
    assert abs(dark["norm"] - plain["norm"]) > 10 * abs(again["norm"] - plain["norm"])
    assert swapped["channel0.mean"] < 0.5 * plain["channel0.mean"]


def test_images_of_many_channels_and_volumes(hooked: Recorder) -> None:
    """Feature maps are summarised as a whole, volumes and videos as images."""
    Answers(torch.zeros(2, 1)).eval()(torch.rand(2, 64, 8, 8))
    assert last(hooked).names[:5] == ("mean", "std", "min", "max", "norm")
    Answers(torch.zeros(2, 1)).eval()(torch.rand(2, 3, 4, 8, 8))
    assert last(hooked).names[0] == "channel0.mean"


def test_precision_of_offset_images(hooked: Recorder) -> None:
    """A small spread on a large offset (16-bit images) keeps its standard deviation, in one row as in many."""
    x = 30_000 + torch.arange(16 * 16).reshape(1, 1, 16, 16).double() % 7
    expected = x.std(correction=0).item()
    for rows in (1, 4):
        Answers(torch.zeros(rows, 1)).eval()(x.repeat(rows, 1, 1, 1).float())
        assert last(hooked).feature("channel0.std") == pytest.approx([expected] * rows, rel=0.02)


def test_tokens(hooked: Recorder) -> None:
    """Ids are length, share of padding and a projection of which ids there are, in any order."""
    model = nn.Sequential(nn.Embedding(1000, 4, padding_idx=0), nn.Flatten(), nn.Linear(32, 2)).eval()
    model(torch.tensor([[5, 6, 7, 8, 0, 0, 0, 0], [8, 7, 6, 5, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 8]]))
    seen = last(hooked)
    assert seen.names == ("length", "pad_share", *(f"projection{at}" for at in range(16)))
    assert seen.feature("length").tolist() == [4, 4, 8]
    assert seen.feature("pad_share").tolist() == [0.5, 0.5, 0]
    assert np.array_equal(seen.cells[0], seen.cells[1])
    assert not np.array_equal(seen.cells[0, 2:], seen.cells[2, 2:])
    assert np.abs(seen.cells[:, 2:]).max() <= 1


def test_ids_of_tables_are_columns(hooked: Recorder) -> None:
    """A model with a table of embeddings for each column has categories as input, not tokens."""

    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ModuleList(nn.Embedding(10, 2) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sum(table(x[:, at]).sum(1, keepdim=True) for at, table in enumerate(self.tables))  # type: ignore[return-value]

    Tables().eval()(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert last(hooked).cells.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_sequences(hooked: Recorder) -> None:
    """Three dimensions of floats are steps of vectors: length, statistics, norms, projection of the mean step."""
    x = torch.randn(3, 10, 6)
    ANY(x)
    seen = last(hooked)
    assert seen.feature("length").tolist() == [10, 10, 10]
    assert np.allclose(seen.feature("mean"), x.mean(dim=(1, 2)), atol=1e-6)
    norms = x.square().mean(2).sqrt()
    assert np.allclose(seen.feature("norm.mean"), norms.mean(1), atol=1e-6)
    assert np.allclose(seen.feature("norm.std"), norms.std(1, correction=0), atol=1e-6)


def test_embeddings(hooked: Recorder) -> None:
    """A wide matrix without names is vectors; said to be columns, it is columns."""
    x = torch.randn(3, 768)
    ANY(x)
    seen = last(hooked)
    assert seen.names[:5] == ("mean", "std", "min", "max", "norm")
    assert seen.attributes["ml.input.columns"] == 21
    at = spread(768, POSITIONS)
    assert np.allclose(seen.feature("norm"), np.sqrt(np.square(x.numpy()[:, at]).mean(axis=1)), rtol=1e-5)
    model = mlspan.instrument_model(Answers(torch.zeros(3, 1)).eval(), input="columns")
    model(x)
    assert last(hooked).cells.shape == (3, 768)


class _Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclass
class _Batch:
    left: torch.Tensor
    right: torch.Tensor


LEFT, RIGHT = torch.ones(3, 2), torch.zeros(3, 1)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (({"left": LEFT, "right": RIGHT},), {}),
        ((_Pair(LEFT, RIGHT),), {}),
        ((_Batch(LEFT, RIGHT),), {}),
        ((), {"left": LEFT, "right": RIGHT}),
        ((LEFT,), {"right": RIGHT}),
        ((LEFT, RIGHT), {}),
        ((), {"left": LEFT, "right": RIGHT, "labels": torch.ones(3), "scale": 2.0}),
    ],
)
def test_several_tensors(hooked: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Dictionaries, tuples, dataclasses and arguments: each tensor's features under its name."""

    class Takes(Answers):
        def forward(self, left: Any, right: Any = None, labels: Any = None, scale: float = 1.0) -> Any:  # type: ignore[override]
            return self.answer

    Takes(torch.zeros(3, 1)).eval()(*args, **kwargs)
    seen = last(hooked)
    assert seen.names == ("left.0", "left.1", "right")
    assert seen.cells.tolist() == [[1, 1, 0]] * 3


def test_attention_mask(hooked: Recorder) -> None:
    """The mask beside ids tells their padding and is no feature."""

    class Takes(Answers):
        def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:  # type: ignore[override]
            return self.answer

    ids = torch.randint(0, 100, (3, 6))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6, [1, 0, 0, 0, 0, 0]])
    Takes(torch.zeros(3, 1)).eval()(input_ids=ids, attention_mask=mask)
    seen = last(hooked)
    assert seen.names[:2] == ("length", "pad_share")
    assert seen.feature("length").tolist() == [3, 6, 1]


def test_other_inputs(hooked: Recorder) -> None:
    """Arrays and lists that a module takes are read as a model's of any other library."""
    ANY(np.ones((3, 2)))
    assert last(hooked).cells.tolist() == [[1, 1]] * 3
    ANY("a text")
    assert last(hooked).attributes["ml.capture.error"] == "unsupported input: str"


def test_capture_hook(hook: Callable[..., Recorder]) -> None:
    """The content hook sees columns and summaries by name, and what it takes away is gone."""
    seen: list[list[str]] = []

    def only_norm(columns: dict[str, Any]) -> dict[str, Any]:
        seen.append(list(columns))
        return {"norm": columns["norm"]}

    recorder = hook(capture_hook=only_norm)
    Answers(torch.zeros(2, 1)).eval()(torch.ones(2, 3, 8, 8))
    assert len(seen[0]) == 29
    assert last(recorder).names == ("norm",)


def test_no_content(hook: Callable[..., Recorder]) -> None:
    """Without content only counts leave."""
    recorder = hook(capture_content=False)
    conv_net()(torch.ones(2, 3, 32, 32))
    seen = last(recorder)
    assert seen.attributes["ml.input.rows"] == 2
    assert not {"ml.payload", "ml.prediction.class", "ml.prediction.entropy"} & set(seen.attributes)
    assert "ml.feature.names" not in seen.scope


def test_projection_is_the_same_in_every_process() -> None:
    """Signs are hashes of positions: the same numbers elsewhere, and no random state is read or changed."""
    program = (
        "import numpy as np\nfrom mlspan.inputs.summaries import signs\n"
        "print(signs(np.arange(64, dtype='u8')).sum(1).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = signs(np.arange(64, dtype=np.uint64))
    assert done.stdout.strip() == str(found.sum(1).tolist())
    assert found.sum(1)[:8].tolist() == GOLDEN


GOLDEN = [0.0, 2.0, 0.0, 2.0, 2.0, -6.0, 2.0, 8.0]


def test_projection_keeps_distances() -> None:
    """Squared distances survive the projection on average, as Johnson and Lindenstrauss promise."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 512))
    layout = vector((512,))
    projected = layout.features(values)[:, -16:]
    ratio = (
        np.square(projected[:200] - projected[200:]).sum(1) * 512 / 16 / np.square(values[:200] - values[200:]).sum(1)
    )
    assert ratio.mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (4, 2, 2), (3, 500, 333), (1, 3, 3), (12, 7, 3), (2, 4, 5, 6)])
def test_layouts_are_bounded(shape: tuple[int, ...]) -> None:
    """Whatever the image's size, at most POSITIONS values of it are read, and the features are finite."""
    layout = image(shape)
    assert layout.positions is not None
    assert 0 < len(layout.positions) <= POSITIONS
    assert len(set(layout.positions.tolist())) == len(layout.positions)
    raw = np.random.default_rng(0).random((2, len(layout.positions)), np.float32)
    found = layout.features(raw)
    assert np.isfinite(found).all()
