"""Profiles as JSON text: a file that people can read, diff and keep beside the model.

Numbers are written with all their digits, so that reading gives back equal arrays. Reading checks every key,
its type and
that arrays fit each other, and names the path of what does not: "features[3].edges: must ascend".
"""

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_NONE, SCORE_RAW
from mlspan.profile.cells import (
    CATEGORICAL,
    TYPES,
    Anomaly,
    FeatureProfile,
    Profile,
    ProfileError,
    Weights,
)

FORMAT: Final = "mlspan-profile"
FORMAT_VERSION: Final = 1


def to_json(profile: Profile) -> str:
    """The profile as JSON text; `from_json` gives back equal arrays."""
    anomaly = profile.anomaly
    return json.dumps(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": {
                "name": profile.model_name,
                "version": profile.model_version,
                "task": profile.task,
                "classes": profile.classes,
            },
            "source": profile.source,
            "rows": profile.rows,
            "weights": {"total": profile.weights.total, "squares": profile.weights.squares},
            "performance": {key: _finite(value) for key, value in profile.performance.items()},
            "anomaly": None
            if anomaly is None
            else {"values": anomaly.values.tolist(), "tails": anomaly.tails.tolist(), "scale": anomaly.scale},
            "prediction": _feature_to_dict(profile.prediction),
            "outputs": [_feature_to_dict(feature) for feature in profile.outputs],
            "score": _feature_to_dict(profile.score),
            "score_kind": profile.score_kind,
            "features": [_feature_to_dict(feature) for feature in profile.features],
        },
        allow_nan=False,
        ensure_ascii=False,
    )


def from_json(text: str) -> Profile:
    """Read a profile.

    Raises:
        ProfileError: no JSON, another format or version, or a key that is missing or does not fit; names its
        path.
    """
    try:
        root = _Node(json.loads(text), "")
    except ValueError as error:
        raise ProfileError(f"no JSON: {error}") from None
    if root.text("format") != FORMAT:
        raise ProfileError(f'format: "{root.text("format")}", must be "{FORMAT}"')
    if root.number("format_version") != FORMAT_VERSION:
        raise ProfileError(f"format_version: {root.number('format_version')}, this release reads {FORMAT_VERSION}")
    model, weights = root.node("model"), root.node("weights")
    anomaly = root.node("anomaly") if root.get("anomaly") is not None else None
    score_kind = int(root.number("score_kind"))
    if not SCORE_NONE <= score_kind <= SCORE_RAW:
        raise ProfileError(f"score_kind: {score_kind}, must be 0, 1 or 2")
    return Profile(
        model_name=model.text("name"),
        model_version=model.text("version"),
        task=model.text("task"),
        classes=model.texts("classes"),
        rows=int(root.number("rows")),
        source=root.text("source"),
        features=tuple(_feature_from(node) for node in root.nodes("features")),
        prediction=_feature_from(root.node("prediction")) if root.get("prediction") is not None else None,
        score=_feature_from(root.node("score")) if root.get("score") is not None else None,
        score_kind=score_kind,
        anomaly=None if anomaly is None else _anomaly_from(anomaly),
        weights=Weights(weights.number("total"), weights.number("squares")),
        # Files of before have none.
        outputs=tuple(_feature_from(node) for node in root.nodes("outputs")) if "outputs" in root else (),
        performance={key: root.node("performance").number(key) for key in root.node("performance")},
    )


def _feature_to_dict(feature: FeatureProfile | None) -> dict[str, Any] | None:
    if feature is None:
        return None
    return {
        "name": feature.name,
        "type": feature.type,
        "mean": _finite(feature.mean),
        "std": _finite(feature.std),
        "min": _finite(feature.min),
        "max": _finite(feature.max),
        "edges": _list(feature.edges),
        "codes": _list(feature.codes),
        "labels": feature.labels,
        "counts": _list(feature.counts),
        "centers": _list(feature.centers),
    }


def _list(array: NDArray[Any] | None) -> list[Any] | None:
    return None if array is None else array.tolist()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _feature_from(node: "_Node") -> FeatureProfile:
    kind = node.text("type")
    if kind not in TYPES:
        raise ProfileError(f'{node.path}type: "{kind}", must be one of {", ".join(TYPES)}')
    counts = node.array("counts", np.float64)
    if (counts < 0).any():
        raise ProfileError(f"{node.path}counts: must not be negative")
    edges = codes = centers = labels = None
    if kind == CATEGORICAL:
        codes = node.array("codes", np.uint32)
        _check_ascending(codes, f"{node.path}codes")
        n_cells = len(codes) + 3
        labels = node.texts("labels") if node.get("labels") is not None else None
        if labels is not None and len(labels) != len(codes):
            raise ProfileError(f"{node.path}labels: {len(labels)} texts for {len(codes)} codes")
    else:
        edges = node.array("edges", np.float32)
        _check_ascending(edges, f"{node.path}edges")
        n_cells = len(edges) + 2
        centers = node.array("centers", np.float64)
        if len(centers) != n_cells:
            raise ProfileError(f"{node.path}centers: {len(centers)} values for {n_cells} cells")
    if len(counts) != n_cells:
        raise ProfileError(f"{node.path}counts: {len(counts)} values for {n_cells} cells")
    mean, std, low, high = (node.optional(key) for key in ("mean", "std", "min", "max"))
    return FeatureProfile(node.text("name"), kind, edges, codes, labels, counts, centers, mean, std, low, high)


def _anomaly_from(node: "_Node") -> Anomaly:
    values, tails = node.array("values", np.float64), node.array("tails", np.float64)
    _check_ascending(values, f"{node.path}values")
    if not len(values) or len(values) != len(tails):
        raise ProfileError(f"{node.path}tails: {len(tails)} shares for {len(values)} values")
    if not ((tails > 0) & (tails <= 1)).all():
        raise ProfileError(f"{node.path}tails: must lie in (0, 1]")
    return Anomaly(values, tails, node.number("scale"))


def _check_ascending(array: NDArray[Any], path: str) -> None:
    if (array[1:] <= array[:-1]).any():
        raise ProfileError(f"{path}: must ascend")


class _Node:
    """One JSON object and the path that leads to it."""

    __slots__ = ("path", "values")

    def __init__(self, values: object, path: str) -> None:
        if not isinstance(values, dict):
            raise ProfileError(f"{path.rstrip('.') or 'the text'}: must be an object")
        self.values: dict[str, Any] = values
        self.path = path

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def get(self, key: str) -> Any:
        if key not in self.values:
            raise ProfileError(f"{self.path}{key}: missing")
        return self.values[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise ProfileError(f"{self.path}{key}: must be a text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ProfileError(f"{self.path}{key}: must be a list of texts")
        return tuple(value)

    def number(self, key: str) -> float:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ProfileError(f"{self.path}{key}: must be a number")
        return value

    def optional(self, key: str) -> float:
        return math.nan if self.get(key) is None else float(self.number(key))

    def array(self, key: str, dtype: type[np.generic]) -> NDArray[Any]:
        value = self.get(key)
        if not isinstance(value, list) or not all(
            isinstance(item, int | float) and not isinstance(item, bool) for item in value
        ):
            raise ProfileError(f"{self.path}{key}: must be a list of numbers")
        try:
            array = np.array(value, dtype)
        except (OverflowError, ValueError) as error:
            raise ProfileError(f"{self.path}{key}: {error}") from None
        if not np.isfinite(array).all():
            raise ProfileError(f"{self.path}{key}: must hold finite numbers")
        return array

    def node(self, key: str) -> "_Node":
        return _Node(self.get(key), f"{self.path}{key}.")

    def nodes(self, key: str) -> list["_Node"]:
        value = self.get(key)
        if not isinstance(value, list):
            raise ProfileError(f"{self.path}{key}: must be a list")
        return [_Node(item, f"{self.path}{key}[{i}].") for i, item in enumerate(value)]
