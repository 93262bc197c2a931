"""Cases of the benchmark: a data set split in three (training, reference, analysis), four models, windows with real
and with made shifts.

Training takes the first 40 % of the rows, the reference the next 30 %, the windows come from the rest: in the order
of time where the data set has one (a real shift), else shuffled by the seed. Every window is drawn without
replacement. Made shifts: rows chosen with odds that rise or fall with one feature (covariate shift), another share of
classes (prior shift), half of one feature's values replaced by other rows' (noise), 40 % of two features' values
removed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.sample import Sample

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MODELS: Final = ("logistic", "boosting", "forest", "bayes")
MAX_TRAIN: Final = 6_000
MAX_REFERENCE: Final = 10_000
MAX_WINDOW: Final = 2_000
CHUNKS: Final = 6
COVARIATE: Final = 8
PRIOR: Final = 4
NOISE: Final = 3
MISSING: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A data set.

    Attributes:
        values: (n, n_features) float64, NaN where missing; categories as codes from 1.
        categorical: (n_features,) which are categories.
        labels: (n,) class indices, or numbers.
        ordered: rows stand in the order of time.
    """

    name: str
    values: Floats
    categorical: NDArray[np.bool_]
    labels: Floats
    n_classes: int
    ordered: bool
    source: str = ""


class Window(NamedTuple):
    """Rows that are estimated together; kind is what was done to them."""

    kind: str
    values: Floats
    labels: Floats


@dataclass(slots=True, eq=False)
class Case:
    """One model on one data set."""

    data: str
    model: str
    reference: Sample
    kinds: list[str] = field(default_factory=list)
    windows: list[Sample] = field(default_factory=list)


def cases_of(data: Data, seed: int = 0) -> Iterator[Case]:
    """A case for each model."""
    rng = np.random.default_rng(seed)
    n = len(data.labels)
    order = np.arange(n) if data.ordered else rng.permutation(n)
    train, reference, rest = np.split(order, [int(0.4 * n), int(0.7 * n)])
    if len(train) > MAX_TRAIN:
        train = np.sort(rng.choice(train, MAX_TRAIN, replace=False))
    if len(reference) > MAX_REFERENCE:
        reference = np.sort(rng.choice(reference, MAX_REFERENCE, replace=False))
    windows = list(_windows(data, rest, rng))
    for name in MODELS:
        model = _Model(name, data, train, seed)
        case = Case(data.name, name, model.sample(data.values[reference], data.labels[reference]))
        for window in windows:
            case.kinds.append(window.kind)
            case.windows.append(model.sample(window.values, window.labels))
        yield case


def _windows(data: Data, rest: Integers, rng: np.random.Generator) -> Iterator[Window]:
    size = min(MAX_WINDOW, len(rest) // 3)
    natural = min(MAX_WINDOW, len(rest) // CHUNKS)
    starts = np.linspace(0, len(rest) - natural, CHUNKS).astype(int)
    for start in starts:
        rows = rest[start : start + natural]
        yield Window("time" if data.ordered else "none", data.values[rows], data.labels[rows])
    spread = [j for j in range(data.values.shape[1]) if len(np.unique(data.values[rest, j])) > 1]
    for i in range(COVARIATE):
        column = data.values[rest, spread[rng.integers(len(spread))]]
        keys = np.where(np.isnan(column), 0.0, _ranks(column))
        tilt = (3.0, 6.0)[i % 2] * rng.choice([-1.0, 1.0])
        yield _take("covariate", data, _weighted(rest, np.exp(tilt * keys), size, rng))
    for i in range(PRIOR):
        one = int(rng.integers(data.n_classes))
        share = float((data.labels[rest] == one).mean())
        wanted = (0.5 * share, min(0.9, 1.6 * share))[i % 2]
        hits, others = rest[data.labels[rest] == one], rest[data.labels[rest] != one]
        total = min(size, int(len(hits) / wanted), int(len(others) / (1 - wanted)))
        n_hits = round(total * wanted)
        chosen = np.concatenate(
            [rng.choice(hits, n_hits, replace=False), rng.choice(others, total - n_hits, replace=False)]
        )
        yield _take("prior", data, rng.permutation(chosen))
    for _ in range(NOISE):
        window = _take("noise", data, rng.choice(rest, size, replace=False))
        j = spread[rng.integers(len(spread))]
        hit = rng.random(size) < 0.5
        window.values[hit, j] = rng.permutation(window.values[:, j])[hit]
        yield window
    for _ in range(MISSING):
        window = _take("missing", data, rng.choice(rest, size, replace=False))
        for j in rng.choice(spread, min(2, len(spread)), replace=False):
            window.values[rng.random(size) < 0.4, j] = np.nan
        yield window


def _ranks(column: Floats) -> Floats:
    """Ranks from 0 to 1, ties together."""
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(column)
    result: Floats = middle[inverse]
    return result


def _weighted(rows: Integers, odds: Floats, size: int, rng: np.random.Generator) -> Integers:
    return rng.choice(rows, size, replace=False, p=odds / odds.sum())


def _take(kind: str, data: Data, rows: Integers) -> Window:
    return Window(kind, data.values[rows].copy(), data.labels[rows])


class _Model:
    """A model of one kind on a data set's training rows."""

    def __init__(self, name: str, data: Data, train: Integers, seed: int) -> None:
        from sklearn.compose import ColumnTransformer  # noqa: PLC0415 heavy
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier  # noqa: PLC0415 heavy
        from sklearn.impute import SimpleImputer  # noqa: PLC0415 heavy
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 heavy
        from sklearn.naive_bayes import GaussianNB  # noqa: PLC0415 heavy
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415 heavy
        from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: PLC0415 heavy

        self._data = data
        kinds: dict[str, Any] = {
            "logistic": LogisticRegression(max_iter=500),
            "boosting": HistGradientBoostingClassifier(random_state=seed),
            "forest": RandomForestClassifier(100, min_samples_leaf=3, random_state=seed),
            "bayes": GaussianNB(var_smoothing=1e-3),
        }
        numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
        levels = make_pipeline(
            SimpleImputer(strategy="most_frequent", keep_empty_features=True),
            OneHotEncoder(max_categories=15, handle_unknown="infrequent_if_exist", sparse_output=False),
        )
        inputs = ColumnTransformer(
            [
                ("numbers", numbers, np.flatnonzero(~data.categorical)),
                ("levels", levels, np.flatnonzero(data.categorical)),
            ]
        )
        self._model = make_pipeline(inputs, kinds[name])
        self._model.fit(data.values[train], data.labels[train].astype(int))

    def sample(self, values: Floats, labels: Floats) -> Sample:
        """What the model answers."""
        data = self._data
        p = np.zeros((len(values), data.n_classes))
        p[:, self._model.classes_] = self._model.predict_proba(values)
        cells = np.empty((values.shape[1], len(values)), np.uint32)
        for j in range(values.shape[1]):
            if data.categorical[j]:
                cells[j] = np.nan_to_num(values[:, j])
            else:
                cells[j] = values[:, j].astype(np.float32).view(np.uint32)
        return Sample(
            task="binary" if data.n_classes == 2 else "multiclass",
            names=tuple(f"x{j}" for j in range(values.shape[1])),
            types=tuple("categorical" if one else "numeric" for one in data.categorical),
            cells=cells,
            classes=tuple(str(k) for k in range(data.n_classes)),
            predictions=p.argmax(axis=1).astype(np.float64),
            labels=labels.astype(np.float64),
            scores=p[:, 1:] if data.n_classes == 2 else p,
            weights=np.ones(len(values)),
        )
