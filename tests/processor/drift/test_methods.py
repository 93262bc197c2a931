"""Each drift method against scipy on the same counts, and against raw rows within its stated bound."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlspan_processor.drift import METHODS, Table, measure
from mlspan_processor.drift.ks import KolmogorovSmirnov
from mlspan_processor.drift.psi import EMPTY
from tests.processor.drift.tables import counts_of, layout_of, rows, table

TABLES = [(5000, 1000, 0.0), (5000, 1000, 0.5), (300, 40, 1.0), (2000, 5, 0.0)]


def coarse_cells(one: Table, j: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference and window counts of a feature's coarse cells."""
    mine = one.layout.coarse_feature == j
    reference, window = one.coarse()
    return reference[mine], window[mine]


def fine_cells(one: Table, j: int) -> tuple[slice, np.ndarray, np.ndarray]:
    """A feature's fine cells without the missing one, and the counts in them."""
    cells = slice(int(one.layout.starts[j]), int(one.layout.missing[j]))
    return cells, one.reference[cells], one.window[cells]


@pytest.mark.parametrize(("n", "m", "shift"), TABLES)
def test_jensen_shannon_is_scipys(n: int, m: int, shift: float) -> None:
    """scipy.spatial.distance.jensenshannon(p, q, base=2) on the coarse counts."""
    one = table(n, m, shift)
    scores = METHODS["jensen_shannon"].score(one)
    for j in range(len(one.layout)):
        expected = jensenshannon(*coarse_cells(one, j), base=2)
        assert scores[j] == pytest.approx(np.nan_to_num(expected), abs=1e-7)


@pytest.mark.parametrize(("n", "m", "shift"), TABLES)
def test_psi_is_the_sum_of_both_entropies(n: int, m: int, shift: float) -> None:
    """scipy.stats.entropy(q, p) + entropy(p, q), half a row in cells that are empty on one side."""
    one = table(n, m, shift)
    scores = METHODS["psi"].score(one)
    for j in range(len(one.layout)):
        p, q = coarse_cells(one, j)
        used = (p > 0) | (q > 0)
        p, q = (np.where(counts == 0, EMPTY, counts)[used] for counts in (p, q))
        assert scores[j] == pytest.approx(stats.entropy(q, p) + stats.entropy(p, q), abs=1e-12)


@pytest.mark.parametrize(("n", "m", "shift"), TABLES)
def test_chi_squared_is_scipys(n: int, m: int, shift: float) -> None:
    """scipy.stats.chi2_contingency without Yates' correction: statistic and p-value."""
    one = table(n, m, shift)
    method = METHODS["chi2"]
    scores = method.score(one)
    p_values = measure(one).p_value
    for j in range(len(one.layout)):
        p, q = coarse_cells(one, j)
        contingency = np.array([p, q])[:, (p + q) > 0]
        if contingency.shape[1] == 1:
            assert scores[j] == 0
            continue
        expected = stats.chi2_contingency(contingency, correction=False)
        assert scores[j] == pytest.approx(expected.statistic, rel=1e-9)
        if not one.layout.numeric[j] or one.layout.boolean[j]:
            assert p_values[j] == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "shift"), TABLES)
def test_ks_is_scipys_on_binned_values(n: int, m: int, shift: float) -> None:
    """scipy.stats.ks_2samp on values replaced by their bin, and its asymptotic p-value within 5e-4 from 30 rows on."""
    one = table(n, m, shift)
    method = KolmogorovSmirnov()
    scores = method.score(one)
    p_values = method.p_value(one, scores)
    for j in np.flatnonzero(one.layout.numeric).tolist():
        _, reference, window = fine_cells(one, j)
        values = np.arange(len(reference))
        expected = stats.ks_2samp(
            np.repeat(values, reference.astype(int)), np.repeat(values, window.astype(int)), method="asymp"
        )
        assert scores[j] == pytest.approx(expected.statistic, abs=1e-12)
        if n * m / (n + m) >= 30:
            assert p_values[j] == pytest.approx(expected.pvalue, abs=5e-4)
    assert np.isnan(scores[~one.layout.numeric]).all()


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5, 2.0])
def test_ks_is_within_one_bin_of_raw_rows(shift: float) -> None:
    """The statistic of raw rows lies above ours by at most the largest share that one bin holds."""
    reference, window = rows(5000, 3), rows(1500, 4, shift)
    one = Table.of(layout_of(reference), counts_of(reference, window))
    ours = METHODS["ks"].score(one)
    for j in (0, 1):
        raw = [np.ascontiguousarray(cells[:, j]).view(np.float32) for cells in (reference, window)]
        exact = stats.ks_2samp(*(values[~np.isnan(values)] for values in raw)).statistic
        _, p, q = fine_cells(one, j)
        bound = max((p / p.sum()).max(), (q / q.sum()).max())
        assert ours[j] <= exact + 1e-9
        assert exact - ours[j] <= bound


@pytest.mark.parametrize(("n", "m", "shift"), TABLES)
def test_wasserstein_is_scipys_on_bin_means(n: int, m: int, shift: float) -> None:
    """scipy.stats.wasserstein_distance of the bins' means over the reference's standard deviation."""
    one = table(n, m, shift)
    scores = METHODS["wasserstein"].score(one)
    for j in np.flatnonzero(one.layout.numeric).tolist():
        cells, reference, window = fine_cells(one, j)
        if one.layout.std[j] == 0:
            assert np.isnan(scores[j])
            continue
        centers = one.layout.centers[cells]
        expected = stats.wasserstein_distance(centers, centers, reference, window) / one.layout.std[j]
        assert scores[j] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    """A mean that moves by half a standard deviation gives about 0.5."""
    assert METHODS["wasserstein"].score(table(20_000, 20_000, 0.5))[0] == pytest.approx(0.5, abs=0.05)


def test_missing_and_unseen_shares() -> None:
    """Shares are those of the window's rows."""
    reference = rows(1000, 0)
    window = rows(200, 1)
    window[:50, 3] = 77
    window[:20, 0] = np.float32(99).view(np.uint32)
    window[20:60, 1] = np.float32(np.nan).view(np.uint32)
    drift = measure(Table.of(layout_of(reference), counts_of(reference, window)))
    expected = np.isnan(np.ascontiguousarray(window[:, 1]).view(np.float32)).mean()
    assert drift.missing[1] == pytest.approx(expected)
    assert drift.unseen[3] == pytest.approx(0.25)
    assert drift.unseen[0] >= 0.1


def test_p_values_are_uniform_without_drift() -> None:
    """Under no drift the smallest of 5 p-values, adjusted, is below .05 in at most about 5 % of windows."""
    reference = rows(5000, 0)
    layout = layout_of(reference)
    hits = 0
    for seed in range(200):
        drift = measure(Table.of(layout, counts_of(reference, rows(500, 1000 + seed))))
        hits += bool(np.nanmin(drift.p_adjusted) < 0.05)
    assert hits <= 24  # 10 expected at most; one fixed reference adds a little


def test_drift_is_found() -> None:
    """A shift of half a standard deviation is significant at 500 rows, and the first by effect are shifted features."""
    drift = measure(table(5000, 500, 0.5))
    assert drift.p_adjusted[0] < 1e-6
    assert drift.effect[0] > 0.1
    assert drift.effect[4] == 0


def test_weights_shrink_significance_not_distance() -> None:
    """Counting every row ten times leaves distances alone, and with Kish's ratio also the p-values."""
    reference, window = rows(5000, 0), rows(500, 1, 0.1)
    layout = layout_of(reference)
    plain = measure(Table.of(layout, counts_of(reference, window)))
    tenfold = measure(Table.of(layout, counts_of(reference, window, np.full(500, 10.0)), window_ratio=0.1))
    for name in ("jensen_shannon", "ks", "wasserstein", "chi2"):
        assert tenfold.scores[name] == pytest.approx(plain.scores[name], nan_ok=True)
    assert tenfold.p_value == pytest.approx(plain.p_value, nan_ok=True)
