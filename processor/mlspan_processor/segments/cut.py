"""Stage 5, segments: a feature as a segment: numbers by the reference's quantiles, categories by value.

In: the reference's rows and a feature's name. Out: a Cut, which gives any sample's rows their part, with the same
labels. Numbers have at most `parts` parts of about equally many reference rows (fewer where values repeat); categories
the `most` most frequent of the reference, the rest "other"; missing values have no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.sample import Sample, Segment
from mlspan_processor.segments.accumulate import OTHER

PARTS: Final = 5
MOST: Final = 50


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """How a feature is cut.

    Attributes:
        name: of the feature.
        labels: of its parts.
        edges: (n_parts - 1,) float64 upper ends of all parts but the last, for numbers; None for categories.
        codes: (n_categories,) uint32 category codes of the first labels, sorted; empty for numbers.
        order: (n_categories,) the label of each.
    """

    name: str
    labels: tuple[str, ...]
    edges: NDArray[np.float64] | None
    codes: NDArray[np.uint32]
    order: NDArray[np.int32]

    def of(self, sample: Sample) -> Segment:
        """The parts of a sample's rows.

        Raises:
            ValueError: the sample lacks the feature.
        """
        cells = _column(sample, self.name)[0]
        if self.edges is not None:
            values = cells.view(np.float32).astype(np.float64)
            parts = np.searchsorted(self.edges, values, "left").astype(np.int32)
            return Segment(np.where(np.isnan(values), -1, parts).astype(np.int32), self.labels)
        place = np.searchsorted(self.codes, cells).clip(0, max(0, len(self.codes) - 1))
        known = self.codes[place] == cells if len(self.codes) else np.zeros(len(cells), bool)
        parts = np.where(known, self.order[place] if len(self.codes) else 0, len(self.labels) - 1)
        return Segment(np.where(cells == 0, -1, parts).astype(np.int32), self.labels)

    def added(self, sample: Sample) -> Sample:
        """The sample with this segment."""
        return replace(sample, segments={**sample.segments, self.name: self.of(sample)})


def cut(
    reference: Sample, name: str, *, parts: int = PARTS, most: int = MOST, texts: Mapping[int, str] | None = None
) -> Cut:
    """How to cut a feature.

    Args:
        reference: rows that fix quantiles and frequent categories.
        name: of the feature.
        parts: of a number's range.
        most: categories told apart.
        texts: readable categories by code.

    Raises:
        ValueError: the reference lacks the feature.
    """
    cells, kind = _column(reference, name)
    nothing = np.zeros(0, np.uint32), np.zeros(0, np.int32)
    if kind != "categorical":
        values = cells.view(np.float32)
        values = values[np.isfinite(values)]
        shares = np.linspace(0, 1, parts + 1)[1:-1]
        found = np.quantile(values, shares, method="inverted_cdf") if len(values) else np.zeros(0)
        edges = np.unique(found).astype(np.float64)
        if len(edges) and len(values) and edges[-1] >= values.max():
            edges = edges[:-1]
        return Cut(name, _between(edges), edges, *nothing)
    codes, counts = np.unique(cells[cells != 0], return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:most]
    labels = [(texts or {}).get(code, f"#{code:08x}") for code in codes[frequent].tolist()]
    order = np.argsort(codes[frequent])
    return Cut(name, (*labels, OTHER), None, codes[frequent][order], order.astype(np.int32))


def _column(sample: Sample, name: str) -> tuple[NDArray[np.uint32], str]:
    if name not in sample.names:
        raise ValueError(f'there is no feature "{name}"; there are {", ".join(sample.names)}')
    at = sample.names.index(name)
    return sample.cells[at], sample.types[at]


def _between(edges: NDArray[np.float64]) -> tuple[str, ...]:
    text = [f"{edge:.6g}" for edge in edges.tolist()]
    if not text:
        return ("all",)
    return (f"up to {text[0]}", *(f"{low} to {high}" for low, high in pairwise(text)), f"above {text[-1]}")
