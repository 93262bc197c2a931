"""Stage 5: drift of the window from the reference. METHODS is the table of methods: one file and one row for
each.

`measure` runs them all over one Table and adds what a report needs: the p-value of each feature's test
(Kolmogorov-Smirnov for numbers, chi-squared for categories), its Benjamini-Hochberg adjustment over the
features, the effect (Jensen-Shannon distance less its expectation without drift), and the shares of missing
and unseen values.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from mlspan_processor.drift.base import DriftMethod, Floats, Layout, Table
from mlspan_processor.drift.chi2 import ChiSquared
from mlspan_processor.drift.jensen_shannon import JensenShannon
from mlspan_processor.drift.ks import KolmogorovSmirnov
from mlspan_processor.drift.psi import PSI
from mlspan_processor.drift.wasserstein import Wasserstein

__all__ = ["METHODS", "Drift", "DriftMethod", "Layout", "Table", "adjusted", "measure"]

_KS: Final = KolmogorovSmirnov()
_CHI2: Final = ChiSquared()
_JENSEN_SHANNON: Final = JensenShannon()

METHODS: Final[dict[str, DriftMethod]] = {
    "psi": PSI(),
    "jensen_shannon": _JENSEN_SHANNON,
    "ks": _KS,
    "wasserstein": Wasserstein(),
    "chi2": _CHI2,
}


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """Drift of every feature of a layout; all arrays (n_features,), NaN where there is nothing to say."""

    scores: dict[str, Floats]
    p_value: Floats
    p_adjusted: Floats
    effect: Floats
    missing: Floats
    unseen: Floats
    reference_missing: Floats
    rows: Floats


def measure(table: Table) -> Drift:
    """All methods over one table."""
    layout = table.layout
    scores = {name: method.score(table) for name, method in METHODS.items()}
    by_ks = layout.numeric & ~layout.boolean
    ks, chi2 = _KS.p_value(table, scores["ks"]), _CHI2.p_value(table, scores["chi2"])
    # Where all values are missing now, only chi-squared has something to compare.
    p = np.where(by_ks & ~np.isnan(ks), ks, chi2)
    window, reference = table.shares(table.window), table.shares(table.reference)
    return Drift(
        scores=scores,
        p_value=p,
        p_adjusted=adjusted(p),
        effect=_JENSEN_SHANNON.effect(table, scores["jensen_shannon"]),
        missing=window[layout.missing] if len(layout) else np.zeros(0),
        unseen=layout.by_feature(window * layout.is_unseen),
        reference_missing=reference[layout.missing] if len(layout) else np.zeros(0),
        rows=layout.by_feature(table.window),
    )


def adjusted(p: Floats) -> Floats:
    """Benjamini-Hochberg adjusted p-values (n,), NaN stays NaN (J. R. Stat. Soc. B 57, 1995)."""
    result = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    if len(known):
        order = known[np.argsort(p[known])]
        scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
        result[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return result
