"""Stage 6: an isolation forest in numpy: trees as heaps in flat arrays, all of them walked at once.

What few random cuts set apart is unlike the rest. Cuts are made in each series (less its median, over its spread) and
in the principal components of all (over theirs), since a broken relation between two series hides from cuts in either.
A missing value counts as the median. Deterministic: the generator is an argument. Memory: TREES × 255 nodes.
Source: Liu, Ting & Zhou, ICDM 2008; for other axes Hariri et al., IEEE TKDE 33, 2021.
"""

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

TREES: Final = 64
SAMPLE: Final = 128
DEPTH: Final = 7
TO_SD: Final = 1.4826
EULER: Final = 0.5772156649
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Fitted trees, as heaps: node i's children are 2i + 1 and 2i + 2.

    Attributes:
        middle, scale: (n_series,) to standardise with.
        axes: (n_columns, n_series) from standardised values to the columns that are cut.
        column, cut: (TREES, nodes) what a node compares with what; a leaf's cut is infinite.
        depth: (TREES, nodes) of a leaf, with the expected depth of what is left in it.
        usual: expected depth of a sample, which depths are compared with.
    """

    middle: Floats
    scale: Floats
    axes: Floats
    column: NDArray[np.intp]
    cut: Floats
    depth: Floats
    usual: float

    @classmethod
    def fit(cls, rows: Floats, rng: np.random.Generator) -> Self:
        """The forest of these rows (n_rows ≥ 2, n_series ≥ 1), NaN where missing."""
        present = np.isfinite(rows)
        middle = np.array([np.median(rows[m, j]) if m.any() else 0.0 for j, m in enumerate(present.T)])
        z = np.where(present, rows - middle, 0.0)
        scale = np.array([np.median(np.abs(z[m, j])) * TO_SD if m.any() else 0.0 for j, m in enumerate(present.T)])
        # Where most values are the same the spread of the others counts; a constant series has a hundredth of its
        # level.
        scale = np.where(scale > 0, scale, z.std(axis=0))
        scale = np.where(scale > 0, scale, np.maximum(0.01 * np.abs(middle), 1e-9))
        z /= scale
        values, vectors = np.linalg.eigh(np.cov(z, rowvar=False).reshape(len(middle), len(middle)))
        wide = values > 1e-9
        # A component's sign is arbitrary: fixed, so that every machine cuts alike.
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(middle))])
        components = (vectors * signs / np.sqrt(np.where(wide, values, 1.0)))[:, wide].T
        axes = np.vstack([np.eye(len(middle)), components])
        return cls(middle, scale, axes, *_grown(z @ axes.T, rng))

    def score(self, row: Floats) -> tuple[float, float]:
        """(isolation, distance) of a row (n_series,).

        Isolation is in (0, 1), about 0.5 for the usual, from the mean depth over all trees. Distance is the log of one
        plus the mean square of all columns: trees cannot tell far from further, nor cut what never moved.
        """
        columns = self.axes @ self.standardised(row)
        distance = math.log1p(float(np.mean(np.square(columns))))
        node = np.zeros(TREES, np.intp)
        tree = np.arange(TREES)
        for _ in range(DEPTH):
            right = columns[self.column[tree, node]] >= self.cut[tree, node]
            node = 2 * node + 1 + right
        return float(2.0 ** (-self.depth[tree, node].mean() / self.usual)), distance

    def standardised(self, row: Floats) -> Floats:
        """(n_series,) robust z-values, 0 where missing."""
        result: Floats = np.nan_to_num((row - self.middle) / self.scale, nan=0.0, posinf=0.0, neginf=0.0)
        return result


def _grown(columns: Floats, rng: np.random.Generator) -> tuple[NDArray[np.intp], Floats, Floats, float]:
    """Column, cut and depth (TREES, nodes), and the usual depth. All trees at once, level by level."""
    nodes = 2 ** (DEPTH + 1) - 1
    size = min(SAMPLE, len(columns))
    column = rng.integers(columns.shape[1], size=(TREES, nodes))
    cut = np.full((TREES, nodes), np.inf)
    depth = np.zeros((TREES, nodes))
    part = rng.random(size=(TREES, nodes))
    rows = np.argsort(rng.random((TREES, len(columns))), axis=1)[:, :size]
    # Where each sampled row is; a row in a leaf goes left from there, and its nodes keep the leaf's depth.
    at = np.zeros((TREES, size), np.intp)
    tree = np.arange(TREES)[:, None]
    leaf = np.zeros((TREES, nodes), bool)
    for level in range(DEPTH + 1):
        here = np.arange(2**level - 1, 2 ** (level + 1) - 1)
        values = columns[rows, column[tree, at]]
        count = np.zeros((TREES, nodes))
        low, high = np.full((TREES, nodes), np.inf), np.full((TREES, nodes), -np.inf)
        np.add.at(count, (tree, at), 1.0)
        np.minimum.at(low, (tree, at), values)
        np.maximum.at(high, (tree, at), values)
        if level:
            parent = (here - 1) // 2
            leaf[:, here] = leaf[:, parent]
            depth[:, here] = np.where(leaf[:, parent], depth[:, parent], level + _left(count[:, here]))
        else:
            depth[:, here] = _left(count[:, here])
        if level == DEPTH:
            break
        splits = ~leaf[:, here] & (low[:, here] < high[:, here])
        span = np.where(splits, high[:, here] - low[:, here], 0.0)
        cut[:, here] = np.where(splits, np.where(splits, low[:, here], 0.0) + part[:, here] * span, np.inf)
        leaf[:, here] |= ~splits
        at = 2 * at + 1 + (values >= cut[tree, at])
    return column, cut, depth, float(_left(np.array([size]))[0])


def _left(n: Floats) -> Floats:
    """Expected further depth of n values: of an unsuccessful search in a binary search tree."""
    safe = np.maximum(n, 3)
    many: Floats = 2 * (np.log(safe - 1) + EULER) - 2 * (safe - 1) / safe
    return np.where(n > 2, many, (n == 2).astype(np.float64))
