"""A connector with a store, and what a killed one leaves behind."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlspan_processor.labels import STATES, Label
from mlspan_processor.model_spans import ModelSpans, prediction_id
from mlspan_processor.records import Chunk
from tests.processor.helpers import Rig, normal_rows

NAME = "state.db"


def kept(folder: Path, **settings: Any) -> Rig:
    """A connector that keeps its state in this folder, and learns quickly."""
    store = {"path": str(folder / NAME), "snapshot_interval": "1000s", **settings.pop("store", {})}
    return Rig(store=store, **{"reference": {"learn_rows": 100}, **settings})


def as_killed(folder: Path, to: Path) -> Path:
    """The files as a process leaves them that is killed now."""
    to.mkdir()
    for file in folder.glob(f"{NAME}*"):
        shutil.copy(file, to)
    return to


def save(rig: Rig) -> bool:
    """Save, on the state thread."""
    connector = rig.connector
    return bool(connector._ask(lambda: connector._state.save(rig.clock())))


def calls_of(spans: ModelSpans, n: int, seed: int, shift: float = 0.0) -> tuple[Chunk, list[str]]:
    """n one-row calls with probabilities, and their ids."""
    rng, ids = np.random.default_rng(seed), []
    for row in normal_rows(n, seed, shift=shift):
        p = float(1 / (1 + np.exp(-row[0] + rng.normal() / 4)))
        ids.append(prediction_id(spans.add(row[None], [p > 0.5], np.array([[1 - p, p]], np.float32))))
    return spans.chunk(), ids


def submit(rig: Rig, ids: Sequence[str], label: str = "yes") -> dict[str, int]:
    """Send labels; what became of them, without the zeros."""
    receipt = rig.connector.submit_labels([Label(text, label) for text in ids])
    states = ("joined", "waiting", "duplicate", "conflicting", "not_captured")
    return {state: count for state in states if (count := getattr(receipt, state))}


def counted(rig: Rig) -> dict[str, int]:
    """What became of labels, without the zeros."""
    counts = rig.connector.status()["labels"]
    return {state: counts[state] for state in STATES if counts[state]}


def report(rig: Rig, model: str = "fraud", version: str | None = None) -> dict[str, Any]:
    """What is counted of a model version."""
    whole = rig.connector.report(model, version)
    return {key: whole[key] for key in ("model", "reference", "drift", "quality", "spans", "rows", "late_rows")}
