"""Spans that come twice count once."""

import numpy as np

from mlspan_processor.duplicates import RecentSpans, span_keys


def test_second_time_is_not_fresh() -> None:
    """A key is fresh once, within a batch and between batches."""
    recent = RecentSpans()
    keys = np.array([5, 7, 5, 9], np.uint64)
    assert recent.fresh(keys).tolist() == [True, True, False, True]
    assert recent.fresh(np.array([9, 11, 5], np.uint64)).tolist() == [False, True, False]


def test_agrees_with_a_set() -> None:
    """Whatever comes in whatever portions, the answer is that of a Python set."""
    rng = np.random.default_rng(0)
    recent, known = RecentSpans(), set[int]()
    for _ in range(200):
        keys = rng.integers(0, 20_000, rng.integers(0, 300)).astype(np.uint64)
        expected = []
        for key in keys.tolist():
            expected.append(key not in known)
            known.add(key)
        assert recent.fresh(keys).tolist() == expected


def test_memory_is_fixed_and_recent_keys_are_kept() -> None:
    """Half of the capacity's last keys are remembered, old ones make way, and memory is the same at all times."""
    recent = RecentSpans(capacity=10_000)
    size = recent.nbytes
    keys = np.random.default_rng(0).integers(0, 1 << 63, 200_000).astype(np.uint64)
    for start in range(0, len(keys), 500):
        assert recent.fresh(keys[start : start + 500]).all()
        assert recent.nbytes == size <= 13 * 10_000
    assert not recent.fresh(keys[-5_000:]).any()
    assert recent.fresh(keys[:1000]).all()


def test_keys_that_follow_one_another_spread_over_the_table() -> None:
    """Numbered ids, as some tracers make, are remembered as well as random ones."""
    recent = RecentSpans(capacity=10_000)
    for step in (1, 1 << 20, 1 << 40):
        keys = np.arange(1, 5_001, dtype=np.uint64) * np.uint64(step)
        recent.remember(keys)
        assert not recent.fresh(keys).any()


def test_an_id_of_zeros_is_an_id() -> None:
    """The key 0 is fresh once, as any other."""
    recent = RecentSpans()
    assert recent.fresh(np.zeros(2, np.uint64)).tolist() == [True, False]
    assert not recent.fresh(np.zeros(1, np.uint64))[0]


def test_ids_of_odd_length() -> None:
    """Ids that are shorter or longer than OTLP's do not shift those of other spans."""
    traces, spans = span_keys([b"\1" * 16, b"", b"\2" * 20], [b"\3" * 8, b"\4", b""])
    assert traces.shape == (3, 2)
    assert traces[0, 0] == int.from_bytes(b"\1" * 8, "little")
    assert traces[2, 1] == int.from_bytes(b"\2" * 8, "little")
    assert spans.tolist() == [int.from_bytes(b"\3" * 8, "little"), 4, 0]
