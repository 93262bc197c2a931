"""Which rows are a window, and how it is told."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlspan_processor import Analysis, analyze
from mlspan_processor.analysis import AnalysisError, reading
from mlspan_processor.analysis.every import parse_every
from tests.processor.analysis.frames import classified, numbers

DAY = 86_400


@pytest.fixture
def reference() -> pd.DataFrame:
    """Numbers, 500 rows."""
    return numbers(np.random.default_rng(0), 500, 2)


def timed(rows: int, seconds: float = 3600.0, start: str = "2024-03-01T12:00:00Z") -> pd.DataFrame:
    """Rows at equal distances in time."""
    frame = numbers(np.random.default_rng(1), rows, 2)
    frame["at"] = pd.Timestamp(start) + pd.to_timedelta(np.arange(rows) * seconds, unit="s")
    return frame


def spans(result: Analysis) -> list[tuple[object, object, int]]:
    """Start, end and rows of each window."""
    return [(window.start, window.end, window.rows) for window in result.windows]


def test_one_window_without_every(reference: pd.DataFrame) -> None:
    """The whole file; rows are told by number, the end not included."""
    assert spans(analyze(reference=reference, current=reference[:321])) == [(0, 321, 321)]


def test_rows_in_the_order_of_the_file(reference: pd.DataFrame) -> None:
    """A last window of half the rows or more stands alone, a shorter one is joined to the one before."""
    current = numbers(np.random.default_rng(1), 350, 2)
    assert spans(analyze(reference=reference, current=current, every="100rows")) == [
        (0, 100, 100),
        (100, 200, 100),
        (200, 300, 100),
        (300, 350, 50),
    ]
    assert spans(analyze(reference=reference, current=current[:349], every="100 rows"))[-1] == (200, 349, 149)
    assert spans(analyze(reference=reference, current=current[:30], every="100rows")) == [(0, 30, 30)]


def test_rows_in_the_order_of_time(reference: pd.DataFrame) -> None:
    """With times a window of rows goes from its first row's time to its last one's, whatever the file's order."""
    current = timed(200, 60)
    shuffled = current.sample(frac=1, random_state=0)
    results = [analyze(reference=reference, current=one, time="at", every="100rows") for one in (current, shuffled)]
    assert spans(results[0]) == [
        ("2024-03-01T12:00:00Z", "2024-03-01T13:39:00Z", 100),
        ("2024-03-01T13:40:00Z", "2024-03-01T15:19:00Z", 100),
    ]
    assert results[0].windows == results[1].windows


def test_days(reference: pd.DataFrame) -> None:
    """Durations are intervals of event time from midnight on, UTC; empty ones are left out."""
    current = timed(60)
    current = current[(current["at"].dt.day != 2)]
    assert spans(analyze(reference=reference, current=current, time="at", every="1d")) == [
        ("2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z", 12),
        ("2024-03-03T00:00:00Z", "2024-03-04T00:00:00Z", 24),
    ]
    assert len(analyze(reference=reference, current=current, time="at", every="6h").windows) == 2 + 4


@pytest.mark.parametrize("form", ["naive", "text", "seconds", "milliseconds", "date", "zone", "arrow"])
def test_forms_of_time(reference: pd.DataFrame, form: str) -> None:
    """Times with and without zone, ISO 8601 texts, dates, Unix seconds and milliseconds mean the same."""
    current = timed(48)
    at = current["at"]
    seconds = at.map(pd.Timestamp.timestamp)
    forms: dict[str, Any] = {
        "naive": at.dt.tz_localize(None),
        "text": at.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": seconds,
        "milliseconds": seconds * 1000,
        "date": at.dt.date,
        "zone": at.dt.tz_convert("America/New_York"),
        "arrow": at.astype(pd.ArrowDtype(pa.timestamp("us", "UTC"))),
    }
    current["at"] = forms[form]
    result = analyze(reference=reference, current=current, time="at", every="1d")
    assert [window.rows for window in result.windows] == [12, 24, 12]
    assert result.windows[1].start == "2024-03-02T00:00:00Z"
    assert list(result.windows[0].features) == ["x0", "x1"]


@pytest.mark.parametrize(
    "form", [pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.date32(), pa.date64(), pa.string(), pa.decimal128(20, 0)]
)
def test_times_too_far_away_are_none(reference: pd.DataFrame, form: Any) -> None:
    """9999-12-31, which people write for "never", is no time of the nineteenth century: its row is in no window."""
    days = [dt.datetime(2024, 3, 1) + dt.timedelta(days=i // 12) for i in range(47)]
    days.append(dt.datetime(9999, 12, 31))
    if form == pa.string():
        times = pa.array([day.isoformat() for day in days])
    elif pa.types.is_decimal(form):
        times = pa.array([int(day.replace(tzinfo=dt.UTC).timestamp()) for day in days]).cast(form)
    else:
        times = pa.array(days, pa.timestamp("us")).cast(form, safe=False)
    current = {"x0": np.arange(48.0), "x1": np.arange(48.0), "at": times}
    result = analyze(reference=reference, current=pa.table(current), time="at", every="1d")
    assert [window.rows for window in result.windows] == [12, 12, 12, 11]
    assert result.windows[0].start == "2024-03-01T00:00:00Z"
    assert any("rows without a time are in no window: 1 of 48" in note for note in result.notes)


def test_clocks_that_jump_and_rows_without_a_time(reference: pd.DataFrame) -> None:
    """A row of 1970 is a window of its own; rows without a time are in none, and that is said."""
    current = timed(48)
    current.loc[5, "at"] = pd.Timestamp("1970-01-01", tz="UTC")
    current.loc[7, "at"] = pd.NaT
    result = analyze(reference=reference, current=current, time="at", every="1d")
    assert spans(result)[0] == ("1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z", 1)
    assert sum(window.rows for window in result.windows) == 47
    assert any("rows without a time are in no window: 1 of 48" in note for note in result.notes)
    first = result.windows[0].features["x0"]
    assert first.drifted is None
    assert first.reason.startswith("undecidable, because")


@pytest.mark.parametrize("text", ["1", "rows", "0rows", "1y", "-5rows", "1.5d", ""])
def test_every_that_is_none(text: str) -> None:
    """Anything else is an error that shows both forms."""
    with pytest.raises(AnalysisError, match=r'must be a number of rows \("1000rows"\) or a duration'):
        parse_every(text)


def test_every_that_is_too_long(reference: pd.DataFrame) -> None:
    """A duration of more than a hundred years is an error that says so; a hundred are a window, before 1970
    as well, and rows have no limit."""
    for text in ("999999999999w", "36501d", "999999999999999999s"):
        with pytest.raises(AnalysisError, match=f'--every "{text}": a duration must be at most a hundred years'):
            parse_every(text)
    current = timed(300, 60).assign(at=lambda frame: frame["at"] - pd.Timedelta(days=80 * 365))
    options: dict[str, Any] = {"reference": reference, "current": current, "time": "at"}
    [window] = analyze(**options, every="36500d").windows
    assert (str(window.start)[:4], str(window.end)[:4]) == ("1870", "1970")
    assert len(analyze(**options, every="999999999999999999rows").windows) == 1


def test_a_duration_needs_times(reference: pd.DataFrame) -> None:
    """--every 1d without --time says which option is missing."""
    with pytest.raises(AnalysisError, match="--time COL"):
        analyze(reference=reference, current=reference, every="1d")


def test_more_windows_than_are_sensible(reference: pd.DataFrame) -> None:
    """A duration far too short for the file is refused before anything is read."""
    current = timed(200_100, 60)
    with pytest.raises(AnalysisError, match="makes 200,100 windows"):
        analyze(reference=reference, current=current, time="at", every="1s")


def test_very_large_windows_are_sampled(reference: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit in memory is a uniform sample, and said to be one; performance rests on all rows."""
    monkeypatch.setattr(reading, "MAX_CELLS", 5_000)
    monkeypatch.setattr(reading, "MIN_ROWS", 100)
    rng = np.random.default_rng(2)
    reference, current = classified(rng, 1000), classified(rng, 4000)
    result = analyze(reference=reference, current=current, probability="p", label="y")
    [window] = result.windows
    assert window.rows == 4000
    assert window.sampled_rows <= 1000
    assert window.metrics["accuracy"].labels == 4000
    assert window.metrics["accuracy"].realised == pytest.approx(((current["p"] > 0.5) == current["y"]).mean())
    assert analyze(reference=reference, current=current, probability="p", label="y") == result


def test_repeated_ids_count_once(reference: pd.DataFrame) -> None:
    """Of rows with one id the first stays, with the first label that any has; another label is counted."""
    rng = np.random.default_rng(3)
    current = classified(rng, 400)
    current["id"] = [f"order {i}" for i in range(400)]
    late = current[:100].copy()
    current["y"] = current["y"].astype(float)
    current.loc[:49, "y"] = np.nan  # these labels come with the repetition
    late.loc[90:, "y"] = 1 - late.loc[90:, "y"]
    whole = classified(rng, 1000)
    result = analyze(reference=whole, current=pd.concat([current, late]), probability="p", label="y", id="id")
    [window] = result.windows
    assert window.rows == 400
    assert window.metrics["accuracy"].labels == 400
    assert any("100 repetitions left out, 10 of them with another label" in note for note in result.notes)
