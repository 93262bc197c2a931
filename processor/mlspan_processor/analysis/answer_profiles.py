"""Batch, part 8c: the distributions of predictions, scores and labels, as profiles beside those of the features.

In: the reference's Sample. Out: an Answer and its profile for each role that has values, of a multilabel model for each
output; and any sample's values as cells of these. Of several classes the score is the probability of the likeliest.
"""

from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NUMBER, SCORE_PROBABILITY
from mlspan.profile import FeatureProfile, build_profile, cells_of
from mlspan_processor.sample import Sample

ROLES: Final = ("prediction", "score", "label")
_INDICATOR: Final = ("0", "1")


class Answer(NamedTuple):
    """What is looked at: a role, and which output's (None for a model with one)."""

    role: str
    output: int | None = None

    def name(self, sample: Sample) -> str:
        """For people."""
        return self.role if self.output is None else f"{self.role} of {sample.classes[self.output]}"


def answer_profiles(sample: Sample) -> list[tuple[Answer, FeatureProfile]]:
    """The answers that the reference has, each with its profile."""
    outputs = list(range(len(sample.classes))) if sample.task == "multilabel" else [None]
    found = []
    for output in outputs:
        for role in ROLES:
            answer = Answer(role, output)
            profile = _profile(sample, answer)
            if profile is not None and profile.counts[:-1].sum() > 0:
                found.append((answer, replace(profile, name=answer.name(sample))))
    return found


def answer_cells(sample: Sample, answer: Answer, profile: FeatureProfile) -> NDArray[np.intp]:
    """(n_rows,) cells of an answer; a row without it is in the missing one."""
    values = _values(sample, answer)
    if profile.codes is None:
        return cells_of(profile, values.astype(np.float32))
    known = len(profile.codes)
    inside = np.where((values >= 0) & (values < known), values, known + 1)
    return np.where(np.isnan(values), profile.missing, inside).astype(np.intp)


def _values(sample: Sample, answer: Answer) -> NDArray[Any]:
    """(n_rows,) values, NaN where there is none."""
    if answer.role == "score":
        if sample.scores is None:
            return np.full(len(sample), np.nan, np.float32)
        if answer.output is not None:
            return np.asarray(sample.scores[:, answer.output], np.float32)
        return np.asarray(sample.scores.max(axis=1), np.float32)  # of one column: itself
    values = sample.predictions if answer.role == "prediction" else sample.labels
    return values if answer.output is None else values[:, answer.output]


def _profile(sample: Sample, answer: Answer) -> FeatureProfile | None:
    values = _values(sample, answer)
    if np.isnan(values).all():
        return None
    given: dict[str, Any]
    if answer.role == "score":
        given = {"scores": values[:, None], "score_kind": SCORE_PROBABILITY}
    elif sample.task == "regression":
        given = {"predictions": values.astype(np.float32), "prediction_kind": PREDICTION_NUMBER}
    else:
        indices = np.where(np.isnan(values), -2, values).astype(np.int32)
        given = {"predictions": indices, "prediction_kind": PREDICTION_CLASS}
    classes = sample.classes if answer.output is None else _INDICATOR
    whole = build_profile(np.zeros((len(sample), 0), np.uint32), [], [], classes=classes, **given)
    return whole.score if answer.role == "score" else whole.prediction
