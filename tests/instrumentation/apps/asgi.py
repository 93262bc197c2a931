"""A FastAPI application: endpoints in threads and on the event loop, two models per request."""

import asyncio
import os

from fastapi import FastAPI

from tests.instrumentation.apps.model import predict

app = FastAPI()


@app.get("/thread/{row}")
def in_thread(row: int) -> list[int]:
    """Predict in uvicorn's thread pool."""
    return [os.getpid(), predict(row % 64)]


@app.get("/loop/{row}")
async def on_loop(row: int) -> list[int]:
    """Predict on the event loop, between other requests."""
    await asyncio.sleep(0.01)
    first = predict(row % 64)
    await asyncio.sleep(0.01)
    return [os.getpid(), first, await asyncio.to_thread(predict, row % 64)]
