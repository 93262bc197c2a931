"""How many rows and columns leave the process, how they are chosen, and what the user can forbid."""

import os
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import stats

from mlspan import payload
from mlspan.budget import ByteBudget
from mlspan.capture import Input, Output, Schema, capture_input, capture_output, pack
from mlspan.captured import EMPTY_SCHEMA
from mlspan.config import Settings
from mlspan.sampling import CELLS, PYTHON_CELLS, row_bound, sample
from tests.instrumentation.inputs import capture, code, columns


@given(
    st.integers(0, 10**7), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 5_000), st.integers(0, 3_000)
)
def test_row_bound(rows: int, row_bytes: int, max_bytes: int, max_rows: int, python_columns: int) -> None:
    """Never more than 64 + rows/16, the user's bounds or the work allowed; one row at least where there is one."""
    bound = row_bound(rows, row_bytes, max_bytes, max_rows, python_columns)
    assert bound <= max(min(rows, 64 + rows // 16, max_rows, max_bytes // row_bytes), min(rows, 1))
    assert bound >= min(rows, 1)
    assert bound * python_columns <= max(PYTHON_CELLS, rows // 8, 16 * python_columns)
    assert bound * row_bytes <= max(4 * max(CELLS, rows * 1.5), row_bytes)


def test_all_rows_of_small_calls() -> None:
    """Up to 68 rows are captured whole, without row numbers."""
    captured = capture(np.zeros((68, 3)))
    assert captured.indices is None
    assert captured.cells is not None
    assert captured.cells.shape == (68, 3)
    captured = capture(np.zeros((70, 3)))
    assert captured.cells is not None
    assert captured.cells.shape == (68, 3)
    assert captured.indices is not None


def test_sample_is_uniform() -> None:
    """Every row is as likely as any other, and the rows are distinct, ascending and where their numbers say."""
    counts = np.zeros(500)
    X = np.arange(500.0).reshape(-1, 1)
    for _ in range(400):
        captured = capture(X)
        assert captured.indices is not None
        assert captured.cells is not None
        assert_array_equal(captured.cells[:, 0], captured.indices)
        assert (np.diff(captured.indices.astype(int)) > 0).all()
        counts[captured.indices] += 1
    share = (64 + 500 // 16) / 500
    # Chi-squared of draws without replacement; one in a million.
    statistic = ((counts - 400 * share) ** 2).sum() / (400 * share * (1 - share)) * 499 / 500
    assert stats.chi2.sf(statistic, 499) > 1e-6


def test_user_random_state_is_untouched() -> None:
    """Sampling draws nothing from numpy's global generator."""
    np.random.seed(3)  # noqa: NPY002 - the generator that users' models share
    before = np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    capture(np.zeros((1_000, 2)))
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index] # noqa: NPY002


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_processes_sample_other_rows() -> None:
    """Workers of one server do not all capture the same rows."""
    sample(10**6, 5)
    found = []
    for _ in range(2):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(theirs, sample(10**6, 5).tobytes())
            os._exit(0)
        os.waitpid(child, 0)
        found.append(os.read(ours, 100))
        os.close(ours)
        os.close(theirs)
    assert found[0] != found[1]


def test_bounds_of_the_user() -> None:
    """max_rows, max_columns and max_bytes hold."""
    captured = capture(np.zeros((10_000, 20)), max_rows=10, max_columns=7)
    assert captured.cells is not None
    assert captured.cells.shape == (10, 7)
    assert captured.columns == 20
    captured = capture(np.zeros((10_000, 20)), max_bytes=1_000)
    assert captured.cells is not None
    assert 0 < captured.cells.nbytes < 1_000


def test_python_cells_are_bounded() -> None:
    """Columns of texts cost Python work: fewer rows then, but no fewer than 16."""
    rows = np.full((10_000, 8), "a", object)
    captured = capture(rows)
    assert captured.cells is not None
    assert captured.cells.shape == (156, 8)
    captured = capture(np.full((1_000, 1_000), "a", object))
    assert captured.cells is not None
    assert captured.cells.shape == (16, 1_000)


def test_allow_and_deny() -> None:
    """Shell patterns choose the columns by name; deny wins; what is not captured is not named."""
    frame = pd.DataFrame({"age": [1.0], "income": [2.0], "ssn": ["s"], "Age": [3.0]})
    assert list(columns(capture(frame, deny=("ssn", "in*")))) == ["age", "Age"]
    assert list(columns(capture(frame, allow=("a*", "ssn"), deny=("s?n",)))) == ["age"]
    assert list(columns(capture(np.array([[1.0, 2, 3]]), allow=("x[02]",)))) == ["x0", "x2"]
    assert columns(capture(frame, allow=("age",), max_columns=1)) == {"age": ("numeric", [1])}
    nothing = capture(frame, deny=("*",))
    assert nothing.schema == EMPTY_SCHEMA
    assert (nothing.rows, nothing.columns) == (1, 4)
    denied = capture(np.arange(200.0).reshape(100, 2), deny=("x0",))
    assert columns(denied)["x1"][1][0] % 2 == 1


def test_patterns_come_before_the_column_limit() -> None:
    """An allowed column beyond the first max_columns is still captured."""
    found = columns(capture(np.arange(5.0).reshape(1, 5), allow=("x3", "x4"), max_columns=2))
    assert found == {"x3": ("numeric", [3]), "x4": ("numeric", [4])}


def test_no_content() -> None:
    """With one switch nothing but counts is left, of input and answers."""
    for X in (np.ones((3, 2)), pd.DataFrame({"a": ["secret"] * 3, "b": 1}), [["secret", 1]] * 3):
        captured = capture(X, capture_content=False)
        assert (captured.rows, captured.columns) == (3, 2)
        assert captured.schema is None
        assert captured.cells is None
        output = capture_output("predict", np.ones(3), captured, None)
        assert (output.predictions, output.value, output.score) == (None, None, None)
        assert pack(captured, output, Settings(), ByteBudget()) is None


def test_hash_key_changes_codes() -> None:
    """Another key, other codes: without it nobody can look texts up."""
    assert columns(capture([["a"]], hash_key=b"ours")) == {"x0": ("categorical", [payload.category_code("a", b"ours")])}


def test_hook_sees_and_changes_content() -> None:
    """The content hook gets readable columns by name, and what it returns is what is captured."""
    seen = {}

    def hook(found: dict[str, Any]) -> dict[str, Any]:
        seen.update({name: values.tolist() for name, values in found.items()})
        found["zip"] = [text[:2] for text in found["zip"]]
        del found["name"]
        found["rounded"] = np.round(found["age"])
        return found

    frame = pd.DataFrame(
        {"age": [1.4, 2.6], "zip": ["12345", "67890"], "name": ["a", "b"], "group": pd.Categorical(["g", None])}
    )
    found = columns(capture(frame, capture_hook=hook))
    assert seen == {"age": [1.4, 2.6], "zip": ["12345", "67890"], "name": ["a", "b"], "group": ["g", None]}
    assert found == {
        "age": ("numeric", [np.float32(1.4), np.float32(2.6)]),
        "zip": ("categorical", [code("12"), code("67")]),
        "group": ("categorical", [code("g"), None]),
        "rounded": ("numeric", [1, 3]),
    }
    assert frame["zip"].tolist() == ["12345", "67890"]


def test_hook_gets_copies() -> None:
    """A hook that writes into what it gets does not reach the user's arrays."""

    def hook(found: dict[str, Any]) -> dict[str, Any]:
        for values in found.values():
            values[:] = 0
        return found

    X = np.ones((3, 2))
    assert columns(capture(X, capture_hook=hook)) == {"x0": ("numeric", [0] * 3), "x1": ("numeric", [0] * 3)}
    assert (X == 1).all()


def test_hook_sees_only_what_would_leave() -> None:
    """Denied columns and rows that are not sampled do not reach the hook."""
    shapes: list[tuple[str, int]] = []

    def hook(found: dict[str, Any]) -> dict[str, Any]:
        shapes.extend((name, len(values)) for name, values in found.items())
        return found

    capture(np.zeros((1_600, 3)), deny=("x1",), capture_hook=hook)
    assert shapes == [("x0", 164), ("x2", 164)]


def _raises(found: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("secret")


@pytest.mark.parametrize(
    ("hook", "error"),
    [
        (_raises, "capture hook failed: ValueError"),
        (lambda found: 3, "capture hook failed: TypeError"),
        (lambda found: {"x0": [1.0]}, "capture hook failed: it answered columns of another length"),
        (lambda found: {"x0": 3}, "capture hook failed: TypeError"),
        (lambda found: None, None),
    ],
)
def test_hook_fails_closed(hook: Any, error: str | None) -> None:
    """A hook that raises, answers nonsense or says None: nothing is captured; counts stay, messages hold no data."""
    captured = capture(np.ones((3, 2)), capture_hook=hook)
    assert (captured.rows, captured.columns, captured.error) == (3, 2, error)
    assert captured.schema is None
    assert captured.cells is None
    assert capture(object(), capture_hook=hook).schema is None


def test_schema_is_one_object_per_set_of_columns() -> None:
    """Equal columns give the same schema object while they are known, and equal hashes always."""
    settings, budget = Settings(), ByteBudget()
    X = np.ones((2, 2))
    first = capture_input(X, ("a", "b"), settings, budget).schema
    assert capture_input(X, ("a", "b"), settings, budget).schema is first
    assert capture_input(pd.DataFrame(X, columns=["a", "b"]), None, settings, budget).schema is first
    assert first == Schema(("a", "b"), ("numeric", "numeric"))
    assert len({first, Schema(("a", "b"), ("numeric", "numeric")), Schema(("a",), ("numeric",))}) == 2
    assert first != "schema"


def _call(rows: int, columns_: int, settings: Settings, budget: ByteBudget) -> tuple[Input, Output]:
    captured = capture_input(np.random.default_rng(0).random((rows, columns_)), None, settings, budget)
    return captured, capture_output("predict", np.arange(float(rows)), captured, None)


def test_pack_keeps_rows_and_answers_together() -> None:
    """Where the budget is short, rows are dropped with their answers, numbers and ids; the rest stands for more."""
    settings, budget = Settings(), ByteBudget()
    captured, output = _call(10_000, 10, settings, budget)
    while budget.take(4_800):
        pass
    room = budget.allowance()
    data = pack(captured, output, settings, budget, ids=[f"id {row}" for row in range(10_000)])
    assert data is not None
    found = payload.decode(data)
    assert found.total_rows == 10_000
    assert found.indices is not None
    assert captured.cells is not None
    assert 0 < len(found.indices) < len(captured.cells)
    assert_array_equal(found.predictions[:, 0], found.indices)
    assert found.ids == tuple(f"id {row}" for row in found.indices)
    assert room // 2 < len(data) <= room < 6_000


def test_pack_is_bounded_by_max_bytes() -> None:
    """A single row that is too big is not sent."""
    settings = Settings(max_bytes=100)
    captured, output = _call(1, 200, settings, ByteBudget())
    assert pack(captured, output, settings, ByteBudget()) is None
    captured, output = _call(50, 10, settings, ByteBudget())
    data = pack(captured, output, settings, ByteBudget())
    assert data is not None
    assert len(data) <= 100


def test_pack_without_anything() -> None:
    """Calls without rows or content have no payload; ids of another length are left out."""
    settings, budget = Settings(), ByteBudget()
    assert pack(*_call(0, 3, settings, budget), settings, budget) is None
    data = pack(*_call(2, 3, settings, budget), settings, budget, ids=["only one"])
    assert data is not None
    assert payload.decode(data).ids is None


def test_spans_of_a_process_stay_below_the_limit() -> None:
    """Calls of all sizes in a row: the payloads of any 512 consecutive ones hold less than 3 MiB, and none is lost."""
    settings, budget = Settings(), ByteBudget()
    random = np.random.default_rng(0)
    sizes = []
    for _ in range(1_500):
        rows = int(random.choice([1, 5, 100, 5_000, 50_000]))
        data = pack(*_call(rows, 4, settings, budget), settings, budget)
        assert data is not None
        sizes.append(len(data))
    running = np.concatenate(([0], np.cumsum(sizes)))
    assert (running[512:] - running[:-512]).max() <= 3 << 20
