"""Replay April to December in order, faster than real time, and tell the truth about each flight a day later."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pandas as pd

CONCURRENCY: Final = 8
LABEL_DELAY: Final = pd.Timedelta(days=1)
LABELS_A_REQUEST: Final = 2_000


@dataclass(frozen=True, slots=True)
class Month:
    """When a month was replayed (wall clock, nanoseconds), how many flights it had, and the late ones' share."""

    month: int
    start_ns: int
    end_ns: int
    flights: int
    late: float


def boards(flights: pd.DataFrame) -> list[tuple[pd.Timestamp, dict[str, Any]]]:
    """One request per airport and hour, in order, with the hour it belongs to."""
    out = []
    for _, group in flights.groupby([flights["departure"].dt.floor("h"), "origin"], sort=True):
        first = group.iloc[0]
        when = pd.Timestamp(first["departure"]).floor("h")
        body = {
            "origin": first["origin"],
            "month": when.month,
            "day": when.day,
            "hour": int(first["hour"]),
            "weekday": int(first["weekday"]),
            "departures": group[["id", "carrier", "dest", "distance", "minute"]].to_dict("records"),
        }
        out.append((when, body))
    return out


async def replay(
    flights: pd.DataFrame,
    service: str,
    labels: str,
    pane_seconds: float,
    progress: Callable[[int, int], None],
) -> list[Month]:
    """Send every flight's hour to the service, and its label to the processor once a day has passed.

    Args:
        flights: as `data.flights` gives them, months to replay only.
        service: base URL of the flights service.
        labels: base URL of the processor's HTTP port.
        pane_seconds: length of the processor's panes; months are kept apart by waiting for the next one.
        progress: called with the month and the flights done since the last call.

    Returns:
        The months in order.
    """
    done = []
    async with httpx.AsyncClient(timeout=60) as client:
        truth = _Truth(flights, client, f"{labels}/v1/labels")
        for month in sorted(flights["month"].unique().tolist()):
            group = flights[flights["month"] == month]
            start = time.time_ns()
            gate = asyncio.Semaphore(CONCURRENCY)

            async def send(body: dict[str, Any], gate: asyncio.Semaphore = gate, month: int = month) -> None:
                try:
                    (await client.post(f"{service}/delays", json=body)).raise_for_status()
                    progress(month, len(body["departures"]))
                finally:
                    gate.release()

            async with asyncio.TaskGroup() as tasks:
                for when, body in boards(group):
                    await gate.acquire()
                    tasks.create_task(send(body))
                    await truth.tell(when - LABEL_DELAY)
            pane = int(pane_seconds * 1e9)
            # A month must not share a pane with the next one.
            await asyncio.sleep((pane - time.time_ns() % pane) / 1e9)
            late = float((group["label"] == "late").mean())
            done.append(Month(month, start, time.time_ns(), len(group), late))
        await truth.tell(None)
    return done


class _Truth:
    """Labels in order of departure, told in bulk once their time has come."""

    def __init__(self, flights: pd.DataFrame, client: httpx.AsyncClient, url: str) -> None:
        known = flights[flights["label"].notna()]
        self._due = known["departure"].to_numpy()
        self._lines = (known["id"] + "," + known["label"]).to_list()
        self._client, self._url, self._next = client, url, 0

    async def tell(self, until: pd.Timestamp | None) -> None:
        """Send the labels of flights that departed before `until`, in full requests; all that is left for None."""
        end = len(self._lines) if until is None else int(self._due.searchsorted(until.to_datetime64()))
        while end - self._next >= (LABELS_A_REQUEST if until is not None else 1):
            upto = min(end, self._next + LABELS_A_REQUEST)
            body = "prediction_id,label\n" + "\n".join(self._lines[self._next : upto])
            answer = await self._client.post(self._url, content=body, headers={"Content-Type": "text/csv"})
            if answer.status_code in (429, 503):
                await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
                continue
            answer.raise_for_status()
            self._next = upto
