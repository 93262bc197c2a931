"""Where nothing has changed, next to nothing is told: at most 1 % of windows, 3 % where rows depend on each other."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from mlspan_processor import analyze
from mlspan_processor.analysis import levels
from tests.processor.analysis.frames import classified, numbers


def most(windows: int, level: float) -> int:
    """Alerts that chance exceeds once in 10,000 such tests."""
    return int(binom.ppf(1 - 1e-4, windows, level))


def test_the_parts_of_the_level_add_up_to_one_percent() -> None:
    """All that can alert shares 1 %."""
    parts = [getattr(levels, name) for name in dir(levels) if name.endswith("_LEVEL")]
    assert len(parts) == 5
    assert sum(parts) == pytest.approx(0.01)


@pytest.mark.parametrize(("rows", "windows", "segment"), [(100, 200, ()), (1000, 80, "kind")])
def test_no_drift_is_quiet(rows: int, windows: int, segment: str | tuple[str, ...]) -> None:
    """Fifty columns with ties, many categories and missing values, predictions, labels and segments."""
    rng = np.random.default_rng(rows)
    reference, current = (classified(rng, n, features=44) for n in (5000, rows * windows))
    for frame in (reference, current):
        frame["count"] = rng.poisson(1.0, len(frame))
        frame["zipf"] = np.minimum(rng.zipf(1.5, len(frame)), 500).astype(str)
        frame.loc[rng.random(len(frame)) < 0.05, "x5"] = np.nan
    result = analyze(
        reference=reference, current=current, probability="p", label="y", segment=segment, every=f"{rows}rows"
    )
    assert len(result.windows) == windows
    assert len(result.alerted) <= most(windows, 0.01)


def test_several_outputs_are_quiet() -> None:
    """Five outputs that depend on each other: drift of each, and performance over all of them."""
    rng = np.random.default_rng(7)
    outputs = range(5)
    frames = []
    for rows in (3000, 300 * 150):
        p = 1 / (1 + np.exp(-rng.normal(size=(rows, 1)) - rng.normal(size=(rows, 5))))
        frame = pd.DataFrame(rng.normal(size=(rows, 1)), columns=["x"])
        for k in outputs:
            frame[f"p{k}"], frame[f"y{k}"] = p[:, k], (rng.random(rows) < p[:, k]).astype(int)
        frames.append(frame)
    result = analyze(
        reference=frames[0],
        current=frames[1],
        label={f"o{k}": f"y{k}" for k in outputs},
        probability={f"o{k}": f"p{k}" for k in outputs},
        every="300rows",
    )
    assert len(result.windows) == 150
    assert len(result.alerted) <= most(150, 0.01)


def test_a_model_that_is_nearly_always_right_is_quiet() -> None:
    """One answer in a hundred is wrong: a few errors among forty rows come by chance, in one of four segments too."""
    rng = np.random.default_rng(3)

    def frame(rows: int) -> pd.DataFrame:
        said, wrong = rng.random(rows) < 0.5, rng.random(rows) < 0.01
        return pd.DataFrame({"x": rng.normal(size=rows), "said": said, "y": said ^ wrong, "part": np.arange(rows) % 4})

    result = analyze(
        reference=frame(12_000), current=frame(160 * 300), prediction="said", label="y", segment="part", every="160rows"
    )
    told = [one for window in result.windows for one in window.alerts if one.kind == "realised"]
    assert len(told) <= most(300, levels.REALISED_LEVEL + levels.SEGMENTS_LEVEL), told


def test_rows_that_depend_on_each_other_are_quiet() -> None:
    """AR(0.5): a naive test alerts in nearly every second window."""
    rng = np.random.default_rng(1)
    reference, current = numbers(rng, 5000, 50, 0.5), numbers(rng, 300 * 150, 50, 0.5)
    result = analyze(reference=reference, current=current, every="300rows")
    assert len(result.alerted) <= most(150, 0.03)
