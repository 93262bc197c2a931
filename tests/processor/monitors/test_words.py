"""What a monitor says of a feature."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from mlspan.profile import build_profile
from mlspan_processor.cells import Reference
from mlspan_processor.monitors.words import DriftWindow, describe
from tests.processor.drift.tables import NAMES, TYPES, rows


def test_unseen_values_in_words() -> None:
    """Numbers are said to lie outside the reference's range, categories never to have been seen."""
    profile = build_profile(rows(1_000, 0), NAMES, TYPES)
    drift = SimpleNamespace(unseen=np.full(5, 0.25))
    window = cast(DriftWindow, SimpleNamespace(judgement=SimpleNamespace(drift=drift)))
    reference: Any = Reference(profile)
    x = profile.features[0]
    assert describe("unseen", window, reference, 0) == (
        f"x: 25.0% outside the reference's {x.min:.4g} to {x.max:.4g}, 0.0% in the reference"
    )
    assert describe("unseen", window, reference, 3) == "carrier: 25.0% never seen before, 0.0% in the reference"
