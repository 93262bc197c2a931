"""The flights service: which of these departures will arrive late? Calls the weather service, then the model.

It is started under ``opentelemetry-instrument``. The one line about mlspan names the rows by the airline's own key, so
that the truth can be told later by that key; without it, rows are named by trace, span and position.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

import mlspan
from examples.flights import data

MODEL = joblib.load(os.environ["FLIGHTS_MODEL"])
OF_FLIGHT = ("carrier", "dest", "distance", "minute")
LATE = list(MODEL.classes_).index("late")


class Departure(BaseModel):
    """One flight that has not left yet."""

    id: str
    carrier: str
    dest: str
    distance: float
    minute: int


class Board(BaseModel):
    """The departures of one airport within one hour."""

    origin: str
    month: int
    day: int
    hour: int
    weekday: int
    departures: list[Departure]


@asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=os.environ["WEATHER_URL"], timeout=10) as client:
        app.state.weather = client
        yield


app = FastAPI(title="flights", lifespan=_client)


@app.post("/delays")
async def delays(board: Board) -> dict[str, float]:
    """Probability of a late arrival by flight."""
    at = f"/weather/{board.origin}/{board.month}/{board.day}/{board.hour}"
    answer = await app.state.weather.get(at)
    weather: dict[str, Any] = answer.json() if answer.status_code == 200 else dict.fromkeys(data.WEATHER)
    n = len(board.departures)
    columns: dict[str, Any] = {name: [getattr(flight, name) for flight in board.departures] for name in OF_FLIGHT}
    columns |= {"origin": [board.origin] * n, "hour": [board.hour] * n, "weekday": [board.weekday] * n}
    columns |= {name: np.full(n, weather[name], float) for name in data.WEATHER}
    frame = pd.DataFrame(columns)[list(data.FEATURES)]
    ids = [flight.id for flight in board.departures]
    with mlspan.prediction_context(prediction_id=ids):
        probabilities = MODEL.predict_proba(frame)[:, LATE]
    return dict(zip(ids, probabilities.tolist(), strict=True))


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Ready."""
    return {"status": "ok"}
