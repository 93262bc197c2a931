"""Stage 5: has the distribution of the values changed? Missing and unseen values are other questions, asked elsewhere.

In: a Table and effective rows. Out: one p-value a feature, from tests that see different shifts, joined by
`combine.joined` with fixed weights.
Numbers: Anderson-Darling on the 50 bins (location and spread; at the level of one feature among fifty it finds a shift
of the mean that Kolmogorov-Smirnov on raw rows finds in half of the windows in nine of ten), and chi-squared on twelve
groups, the outermost 2 % of each tail by themselves (anything else). Both weigh ties as they are, since their null
distribution is that of the reference's own cells: unlike Kolmogorov-Smirnov, heavy ties make them no more cautious.
Categories: chi-squared over the cells where both sides expect at least five rows, the rest in one, and the largest
single change of a category. Cells are pooled by the two sides' sum, so that the pooling is no news about either.
The level holds from 100 against 300 rows on to 1e-5 (within a half), at 30 against 100 to 1e-3.
Memory: k eigenvalues a numeric feature, once a layout. Source: Anderson & Darling, J. Am. Stat. Assoc. 49, 1954; Scholz
& Stephens, ibid. 82, 1987 (ties); Pearson, 1900; Cressie & Read, J. R. Stat. Soc. B 46, 1984 (the likelihood ratio).
"""

from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, xlogy

from mlspan_processor.drift.base import Floats, Layout, Table
from mlspan_processor.drift.combine import joined, quadratic_tail
from mlspan_processor.drift.shares import differs

NUMBER_WEIGHTS: Final = (0.8, 0.2)
CATEGORY_WEIGHTS: Final = (0.75, 0.25)
"""Of chi-squared and the largest single change: a shift of one share among forty is found thrice as often, and one of
all shares two or three points less often."""
GROUPS: Final = (0.0199, 0.0999, *(i / 10 - 1e-4 for i in range(2, 10)), 0.9799)
"""Cumulative reference shares at which the groups of a numeric feature end."""
CERTAIN: Final = 10.0
"""Rows that the reference expects at least of a category that is a cell by itself. A category is known because the
reference has it; of rarer ones, the known ones are those that it happens to have too many of. They are compared as one
with the unseen ones and those that were folded into "other"."""
OUTLYING: Final = 12.0
"""A single cell's term that is far out. Where five rows are expected, fifteen are 100 times likelier than a term of 20
says; the likelihood ratio is right there, but too large for the many cells that have fewer rows than expected."""
EXPECTED: Final = 5.0
"""Rows that a cell of a chi-squared test expects at least on either side (Cochran, 1954)."""


def certain_of(counts: Floats) -> float:
    """Rows that the reference is to have of a category before it stands by itself.

    Args:
        counts: (n_known + 2,) of the reference: the known categories, those folded into "other", and the unseen ones.
    """
    kept, other = counts[:-2], counts[-2]
    least = float(kept.min()) if other > 0 and len(kept) else 0.0
    return float(max(CERTAIN, least + 4 * np.sqrt(least)))


class Plan:
    """What the tests need to know of a layout, worked out once.

    Attributes:
        cell: (n_cells,) the test cell of each fine cell: a numeric feature's outer cells belong to their neighbours,
            as the reference has none there by construction; -1 for missing values.
        owner: (n_test_cells,) feature of each test cell; `starts` (n_features,).
        group: (n_cells,) likewise for groups; `group_owner` (n_groups,).
        numbers: features tested by Anderson-Darling; `cuts` (n_numbers, k) fine cells after which each cut lies,
            `cut_weights` (n_numbers, k), 0 where there is none, `eigenvalues` (n_numbers, k).
        certain: (n_features,) rows that the reference is to expect of a category before its cell stands by itself.
        others: test cells of folded and of unseen categories.
    """

    def __init__(self, layout: Layout) -> None:
        n = len(layout)
        self.group = np.full(layout.n_cells, -1, np.intp)
        owners: list[int] = []
        self.certain = np.zeros(n)
        self.others: list[int] = []
        cuts: dict[int, tuple[NDArray[np.intp], Floats, Floats]] = {}
        for j in range(n):
            start, missing = int(layout.starts[j]), int(layout.missing[j])
            if layout.numeric[j]:
                inner = np.arange(start + 1, missing - 1)
                if len(inner):
                    groups = _grouped(layout.reference[inner])
                    self.group[inner] = len(owners) + groups
                    self.group[start], self.group[missing - 1] = self.group[inner[0]], self.group[inner[-1]]
                    owners += [j] * (int(groups[-1]) + 1)
                if len(inner) > 1:
                    cuts[j] = (inner[:-1], *_anderson_darling(layout.reference[inner]))
            else:
                known = np.arange(start, missing)
                self.group[known] = len(owners) + np.arange(len(known))
                self.others += [len(owners) + len(known) - 2, len(owners) + len(known) - 1]
                owners += [j] * len(known)
                self.certain[j] = certain_of(layout.reference[start:missing])
        self.owner = np.array(owners, np.intp)
        self.numbers = np.array(list(cuts), np.intp)
        width = max((len(at) for at, _, _ in cuts.values()), default=0)
        self.cuts = np.zeros((len(cuts), width), np.intp)
        self.cut_weights = np.zeros((len(cuts), width))
        self.eigenvalues = np.zeros((len(cuts), width))
        for row, (at, weights, eigenvalues) in enumerate(cuts.values()):
            self.cuts[row, : len(at)], self.cut_weights[row, : len(at)] = at, weights
            self.eigenvalues[row, : len(at)] = eigenvalues


_PLANS: WeakKeyDictionary[Layout, Plan] = WeakKeyDictionary()


def plan_of(layout: Layout) -> Plan:
    """The plan of a layout, made at its first use."""
    plan = _PLANS.get(layout)
    if plan is None:
        plan = _PLANS[layout] = Plan(layout)
    return plan


def shape_p(table: Table, n: Floats, m: Floats) -> Floats:
    """P-values (n_features,), NaN where either side has no known value.

    Args:
        table: the counts.
        n, m: (n_features,) effective rows of window and reference that have a known value.
    """
    layout, plan = table.layout, plan_of(table.layout)
    if not len(layout):
        return np.zeros(0)
    by_groups, largest = _cells_p(table, plan, n, m)
    darling = _anderson_darling_p(table, plan, n, m)
    numbers = joined(np.stack([darling, by_groups]), np.array(NUMBER_WEIGHTS)[:, None])
    categories = joined(np.stack([by_groups, largest]), np.array(CATEGORY_WEIGHTS)[:, None])
    # A number with two values has a single change to see, and one test that is right for small counts.
    two = layout.numeric & (np.bincount(plan.owner, minlength=len(layout)) == 2)
    p = np.where(two, largest, np.where(layout.numeric, numbers, categories))
    return np.where((n > 0) & (m > 0), p, np.nan)


def _grouped(counts: Floats) -> NDArray[np.intp]:
    total = counts.sum()
    middle = (np.cumsum(counts) - counts / 2) / (total if total > 0 else 1.0)
    _, group = np.unique(np.searchsorted(GROUPS, middle, "right"), return_inverse=True)
    if len(counts) <= len(GROUPS):
        group = np.arange(len(counts))
    return group.astype(np.intp)


def _anderson_darling(counts: Floats) -> tuple[Floats, Floats]:
    """Weights and eigenvalues (n_cells - 1,) of a feature's cuts."""
    shares = counts / counts.sum()
    below = np.clip(np.cumsum(shares)[:-1], 1e-12, 1 - 1e-12)
    # Between unequal neighbours the geometric mean: a rare value beside a common one gets little, and no noise.
    weights = np.sqrt(shares[:-1] * shares[1:]) / (below * (1 - below))
    covariance = np.minimum.outer(below, below) - np.outer(below, below)
    root = np.sqrt(weights)
    return weights, np.maximum(np.linalg.eigvalsh(covariance * np.outer(root, root)), 0.0)


def _anderson_darling_p(table: Table, plan: Plan, n: Floats, m: Floats) -> Floats:
    result = np.full(len(table.layout), np.nan)
    if not len(plan.numbers):
        return result
    window, reference = (np.where(table.layout.is_missing, 0.0, x) for x in (table.window, table.reference))
    gaps = table.running(table.shares(window)) - table.running(table.shares(reference))
    each = gaps[plan.cuts]
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = n * m / (n + m) * (1 - 1 / n - 1 / m)
    x = np.einsum("ij,ij,ij->i", each, each, plan.cut_weights) * rows[plan.numbers]
    known = np.isfinite(x)
    p = np.full(len(x), np.nan)
    p[known] = quadratic_tail(x[known], plan.eigenvalues[known])
    result[plan.numbers] = p
    return result


def _cells_p(table: Table, plan: Plan, n: Floats, m: Floats) -> tuple[Floats, Floats]:
    """P-values (n_features,) of chi-squared over the groups, and of the largest change of one of them."""
    size, features = len(plan.owner), len(table.layout)
    used, owner = plan.group >= 0, plan.owner
    cells = plan.group[used]
    a, c = (_counted(cells, counts[used], size) for counts in (table.window, table.reference))
    with np.errstate(divide="ignore", invalid="ignore"):
        a = np.nan_to_num(a * (n / table.layout.by_feature(table.present()[1]))[owner])
        c = np.nan_to_num(c * (m / table.layout.by_feature(table.present()[0]))[owner])
        # Rows in test cells: all that have a value.
        n, m = (_counted(owner, x, features) for x in (a, c))
        window_share = np.nan_to_num(n / (n + m))
        fewest = np.minimum(window_share, 1 - window_share)
        least = (plan.certain / (1 - window_share))[owner]
        limit = np.maximum((EXPECTED / fewest)[owner], least)
    both = a + c
    rare = (both < limit) & (both > 0)
    rare[plan.others] = True
    pooled = ~rare & (both > 0)
    rest_a, rest_c = (_counted(owner, x * rare, features) for x in (a, c))
    rest = rest_a + rest_c
    counted = rest >= EXPECTED / np.where(fewest > 0, fewest, 1.0)
    chi2 = _counted(owner, _terms(a, c, window_share[owner]) * pooled, features)
    chi2 += np.where(counted, _terms(rest_a, rest_c, window_share), 0.0)
    freedom = _counted(owner, pooled.astype(np.float64), features) + counted - 1
    by_groups = np.where(freedom > 0, chdtrc(np.maximum(freedom, 1), chi2), 1.0)
    tested = (both >= EXPECTED) & (both >= least)
    tested[plan.others] = False
    p = np.where(tested, differs(a, n[owner], c, m[owner]), 1.0)
    smallest = np.ones(features)
    np.minimum.at(smallest, owner, p)
    tests = np.bincount(owner, tested, features)
    # Two cells make one comparison.
    tests = np.where(np.bincount(owner, both > 0, features) == 2, 1, tests)
    largest = np.minimum(1.0, smallest * np.maximum(tests, 1))
    return by_groups, largest


def _counted(where: NDArray[np.intp], what: Floats, size: int) -> Floats:
    # Without any place to count into, bincount forgets the weights' type.
    return np.bincount(where, what, size).astype(np.float64, copy=False)


def _terms(a: Floats, c: Floats, window_share: Floats) -> Floats:
    """Both sides' terms of chi-squared, beyond OUTLYING at most as large as those of the likelihood ratio."""
    expected_a, expected_c = (a + c) * window_share, (a + c) * (1 - window_share)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (a - expected_a) ** 2 / expected_a + (c - expected_c) ** 2 / expected_c
        ratio = 2 * (xlogy(a, a / expected_a) + xlogy(c, c / expected_c))
    capped: Floats = np.minimum(terms, np.maximum(np.nan_to_num(ratio), OUTLYING))
    return np.where(a + c > 0, np.nan_to_num(capped), 0.0)
