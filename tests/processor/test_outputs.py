"""The truth of several outputs as one number."""

import numpy as np

from mlspan_processor.outputs import MAX_OUTPUTS, packed, truth_of, unpacked

NAMES = ("food", "music", "sport")


def test_truths_are_packed_exactly() -> None:
    """Any combination of up to 53 outputs is one number and back; a row with a gap is none."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (200, MAX_OUTPUTS)).astype(np.float64)
    rows[0], rows[1] = 1, 0
    assert np.array_equal(unpacked(packed(rows), MAX_OUTPUTS), rows)
    rows[2, 5] = np.nan
    assert np.isnan(packed(rows)[2])
    assert np.isnan(unpacked(packed(rows), MAX_OUTPUTS)[2]).all()
    assert truth_of((), NAMES) == 0.0
    assert truth_of(";", NAMES) == 0.0
    assert truth_of((True, False, True), NAMES) == 5.0
    assert truth_of(("sport", "food", "food"), NAMES) == 5.0
