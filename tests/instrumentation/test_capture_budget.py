"""The byte budget: no run of spans that is exported together may hold more than the limit."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlspan.budget import LIMIT_BYTES, REORDERED_SPANS, SPANS, ByteBudget


def _run(budget: ByteBudget, sizes: list[int]) -> list[int]:
    """What was sent of payloads of these sizes."""
    return [size if budget.take(size) else 0 for size in sizes]


def _worst(sent: list[int], spans: int) -> int:
    """The largest sum of so many consecutive payloads."""
    running = np.concatenate(([0], np.cumsum(sent)))
    width = min(spans, len(sent))
    return int((running[width:] - running[:-width]).max()) if sent else 0


@given(
    st.integers(1, 8),
    st.integers(1_000, 100_000),
    st.lists(st.integers(0, 20_000) | st.integers(0, 200) | st.just(10**9), max_size=300),
)
def test_limit_is_never_exceeded(spans: int, limit: int, sizes: list[int]) -> None:
    """Whatever sizes are asked for in whatever order, no window of consecutive payloads holds more than the limit."""
    sent = _run(ByteBudget(spans, limit), sizes)
    assert _worst(sent, spans + REORDERED_SPANS) <= limit


@pytest.mark.parametrize("pattern", ["greedy", "bursts", "alternating", "just above the rate"])
def test_limit_holds_against_adversaries(pattern: str) -> None:
    """Callers that take all they are offered, or more, stay below 3 MiB in 512 spans."""
    budget = ByteBudget()
    sent = []
    for at in range(3_000):
        size = {
            "greedy": budget.allowance(),
            "bursts": 131_072 if at % 600 < 30 else 200,
            "alternating": (131_072, 0)[at % 2],
            "just above the rate": budget.rate_bytes + 1,
        }[pattern]
        sent.append(size if budget.take(size) else 0)
    assert max(sent) > 0
    assert _worst(sent, SPANS) <= LIMIT_BYTES


@given(st.lists(st.integers(0, 1_000_000), max_size=400))
def test_small_payloads_are_always_taken(sizes: list[int]) -> None:
    """After any history, a payload that fits its span's own share is sent: single rows are never lost to batches."""
    budget = ByteBudget()
    for size in sizes:
        budget.take(size)
        assert budget.take(budget.rate_bytes)


def test_row_of_the_default_column_limit_fits() -> None:
    """512 calls of one row with 1,024 columns and its answers are all sent."""
    size = 20 + 128 + 4 * 1024 + 16
    assert all(_run(ByteBudget(), [size] * 2_000))


def test_what_is_offered_is_taken() -> None:
    """A payload of the size that was offered is never refused, so that one encoding is enough."""
    budget = ByteBudget()
    for _ in range(3_000):
        assert budget.take(budget.allowance())


def test_batches_get_even_shares() -> None:
    """Under batches without end each span gets about the same, and nearly all of the limit is used."""
    budget = ByteBudget()
    sent = []
    for _ in range(5_000):
        size = budget.allowance()
        budget.take(size)
        sent.append(size)
    settled = sent[-SPANS:]
    assert max(settled) - min(settled) <= 8
    assert sum(settled) > 0.75 * LIMIT_BYTES
    assert sent[0] > 90_000


def test_burst_returns() -> None:
    """After small payloads a large one is possible again."""
    budget = ByteBudget()
    first = budget.allowance()
    while budget.take(50_000):
        pass
    assert budget.allowance() < first // 4
    _run(budget, [100] * 100)
    assert budget.allowance() > 0.99 * first


def test_threads() -> None:
    """The sums stay right when many threads take at once."""
    budget = ByteBudget()

    def work() -> None:
        for at in range(2_000):
            budget.take(10_000 if at % 7 else budget.allowance())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = ByteBudget()
    assert 0 <= budget._tokens <= alone._tokens


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_while_locked() -> None:
    """A child that was forked while another thread held the lock can take."""
    budget = ByteBudget()
    with budget._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if budget.take(100) else 1)
    assert os.waitpid(child, 0)[1] == 0
