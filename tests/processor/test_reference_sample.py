"""Labelled rows beside a profile: what is written is read back, in the model's own order; what is broken is no harm."""

import logging
from pathlib import Path

import numpy as np
import pytest

from mlspan_processor.estimate import Estimator
from mlspan_processor.reference_build import build
from mlspan_processor.reference_sample import in_order, read_sample, sample_path, write_sample


def table(folder: Path, rows: int = 400) -> Path:
    """Past predictions with probabilities and labels."""
    random = np.random.default_rng(0)
    amount = random.normal(size=rows)
    p = 1 / (1 + np.exp(-2 * amount))
    truth = np.where(random.random(rows) < p, "yes", "no")
    file = folder / "past.csv"
    lines = [
        f"{a:.4f},{'UA' if i % 2 else 'AA'},{'yes' if q > 0.5 else 'no'},{q:.5f},{y}"
        for i, (a, q, y) in enumerate(zip(amount, p, truth, strict=True))
    ]
    file.write_text("amount,carrier,said,p,truth\n" + "\n".join(lines) + "\n")
    return file


def test_the_sample_of_a_table_is_what_estimates_are_fitted_on(tmp_path: Path) -> None:
    """Rows, features as a payload has them, classes and probability of the last one; through a file and back."""
    built = build(table(tmp_path), label="truth", prediction="said", probabilities=["p"], model="m")
    assert built.sample is not None
    file = sample_path(tmp_path / "m.json")
    write_sample(built.sample, file)
    sample = read_sample(file)
    assert sample is not None
    assert (sample.task, sample.classes, len(sample)) == ("binary", ("no", "yes"), 400)
    assert sample.names == tuple(feature.name for feature in built.profile.features) == ("amount", "carrier")
    assert sample.scores is not None
    assert sample.scores.shape == (400, 1)
    assert ((sample.scores[:, 0] > 0.5) == (sample.predictions == 1)).all()
    accuracy = Estimator.fit(sample).estimate(sample)["accuracy"]
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low < built.profile.performance["accuracy"] < accuracy.high


def test_without_labels_there_is_no_sample(tmp_path: Path) -> None:
    """Nor without anything that a label could be compared with."""
    file = table(tmp_path)
    assert build(file, prediction="said").sample is None
    assert build(file, label="truth").sample is None


def test_order_of_the_model_counts(tmp_path: Path) -> None:
    """Features and classes come in the model's order, probabilities turned round; other ones are of no use."""
    built = build(table(tmp_path), label="truth", prediction="said", probabilities=["p"])
    sample = built.sample
    assert sample is not None
    assert sample.scores is not None
    turned = in_order(sample, ("carrier", "amount"), ("yes", "no"))
    assert turned is not None
    assert turned.scores is not None
    assert (turned.cells[0] == sample.cells[1]).all()
    assert (turned.labels == 1 - sample.labels).all()
    assert turned.scores == pytest.approx(1 - sample.scores)
    assert in_order(sample, ("amount",), ("no", "yes")) is None
    assert in_order(sample, ("amount", "carrier"), ("no", "maybe")) is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_broken_file_is_no_sample(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its name, and the model version learns as if there were none."""
    caplog.set_level(logging.WARNING)
    file = tmp_path / "m.sample.npz"
    assert read_sample(file) is None
    file.write_bytes(content)
    assert read_sample(file) is None
    assert "m.sample.npz" in caplog.text
