"""The weather service: what the weather was at an airport, by the hour. An ordinary service that knows no model."""

from typing import Any

from fastapi import FastAPI, HTTPException

from examples.flights import data

app = FastAPI(title="weather")
_TABLE: dict[tuple[str, int, int, int], dict[str, float | None]] = {
    (row["origin"], row["month"], row["day"], row["hour"]): {
        name: None if row[name] != row[name] else row[name] for name in data.WEATHER
    }
    for row in data.weather().to_dict("records")
}


@app.get("/weather/{origin}/{month}/{day}/{hour}")
async def weather(origin: str, month: int, day: int, hour: int) -> dict[str, Any]:
    """The measured values, null where the station has none; 404 where it has no row."""
    found = _TABLE.get((origin, month, day, hour))
    if found is None:
        raise HTTPException(404, "no measurement at that hour")
    return found


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Ready."""
    return {"status": "ok"}
