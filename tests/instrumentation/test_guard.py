"""Our own failures: counted, logged once, raised only where a test wants it."""

import pytest

from mlspan import guard


@pytest.fixture(autouse=True)
def _as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_raise", False)
    monkeypatch.setattr(guard, "_seen", set())
    monkeypatch.setattr(guard, "_failures", type(guard._failures)())


@guard.guarded("test: divide", -1.0)
def _divide(by: float) -> float:
    """Divide one."""
    return 1 / by


def test_default_and_count(caplog: pytest.LogCaptureFixture) -> None:
    """A failure gives the default, counts each time, and is logged once per place and kind."""
    assert _divide(2) == 0.5
    assert [_divide(0), _divide(0)] == [-1.0, -1.0]
    assert guard.failures() == {"test: divide": 2}
    (record,) = caplog.records
    assert record.getMessage() == "mlspan failed in test: divide; your call went on without it (logged once)"
    assert record.exc_info
    assert _divide("x") == -1.0  # type: ignore[arg-type]  # another kind of failure
    assert len(caplog.records) == 2


def test_raised_under_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """With MLSPAN_RAISE a failure is raised as it is."""
    monkeypatch.setattr(guard, "_raise", True)
    with pytest.raises(ZeroDivisionError):
        _divide(0)


def test_interrupts_are_no_failures() -> None:
    """KeyboardInterrupt passes through the guard."""

    @guard.guarded("test: stop", None)
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert guard.failures() == {}


def test_looks_like_the_function() -> None:
    """A guarded function keeps name and documentation."""
    assert (_divide.__name__, _divide.__doc__) == ("_divide", "Divide one.")


def test_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be done as asked is said once and counted each time."""
    guard.warn_once("test: ids", "got %d", 3)
    guard.warn_once("test: ids", "got %d", 4)
    assert [record.getMessage() for record in caplog.records] == ["got 3"]
    assert guard.failures() == {"test: ids": 2}
