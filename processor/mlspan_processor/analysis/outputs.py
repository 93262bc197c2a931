"""Batch, part 4b: rows with several outputs (multilabel): which of them hold, and how sure the model was of each.

In: the Answers of both files. Out: the Model, whose classes are the outputs' names, and Answered rows of (n_rows,
n_outputs), NaN where a row's truth or answer is not known in full. Without predictions an output is predicted where its
probability is above 0.5, as scikit-learn's classifiers do. Memory: 8 bytes a row and output, at most `MAX_OUTPUTS`.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.answered import Answered, Model, valid
from mlspan_processor.analysis.answers import Answers
from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.indicators import Indicators

MAX_OUTPUTS: Final = 64
"""Outputs of a model, as many as a span carries."""
Pairs = Sequence[tuple[str, str]]


def model_of_outputs(task: str | None, reference: Answers, current: Answers, pairs: Pairs) -> Model:
    """The outputs of a multilabel model.

    Args:
        task: what the user said, or None.
        reference, current: both files' answers.
        pairs: (output or "", column) of each probability.

    Raises:
        AnalysisError: another task was said, or nothing says what the outputs are.
    """
    given = [one for answers in (reference, current) for one in (answers.labels, answers.predictions) if one]
    if task not in {None, "multilabel"}:
        raise AnalysisError(f'--task "{task}": the columns are of several outputs; must be multilabel')
    single = next((name for name in ("label", "prediction") if _single(reference, current, name)), None)
    if single is not None:
        raise AnalysisError(
            f"--{single}: a multilabel model needs a column of 0 and 1 for each output (--{single} NAME=COL, "
            "repeated), or one column of lists of names"
        )
    if any(not name for name, _ in pairs):
        raise AnalysisError("name the output of each probability (--probability NAME=COL)")
    named = [one.names() for one in given if isinstance(one, Indicators)]
    probable = tuple(name for name, _ in pairs)
    found = next(iter([*named, *([probable] if probable else [])]), None)
    if found is None:
        found = tuple(sorted({name for one in given for name in one.names()}))
    for other in [*named, probable]:
        strange = [name for name in other if name not in found]
        if strange or (other and len(other) < len(found)):
            which = strange[0] if strange else next(name for name in found if name not in other)
            known = ", ".join(f'"{name}"' for name in found)
            raise AnalysisError(f'the output "{which}" is not named everywhere; the outputs are {known}')
    if len(found) < 2:
        raise AnalysisError(f"{len(found)} outputs: a multilabel model has at least 2; say --task binary for one")
    if len(found) > MAX_OUTPUTS:
        raise AnalysisError(f"{len(found)} outputs: at most {MAX_OUTPUTS} are analysed together")
    inferred = []
    if task is None:
        inferred.append(f"task multilabel: columns of {len(found)} outputs")
    if reference.predictions is None and current.predictions is None and pairs:
        inferred.append("predictions: every output with a probability above 0.5")
    return Model("multilabel", found, tuple(inferred))


def answered_outputs(answers: Answers, model: Model, name: str) -> Answered:
    """A file's answers as (n_rows, n_outputs); `name` is the file's, for the notes."""
    outputs, notes = model.classes, list[str]()
    nothing = np.full((answers.rows, len(outputs)), np.nan)
    labels = nothing if answers.labels is None else answers.labels.values(outputs, "label")
    said = nothing if answers.predictions is None else answers.predictions.values(outputs, "prediction")
    given = answers.probabilities
    order = [answers.classes.index(output) for output in outputs] if given is not None else []
    found = None if given is None else valid(given[:, order], False, name, notes)
    derived = answers.predictions is None
    if derived and found is not None:
        said = np.where(np.isnan(found.values), np.nan, found.values > 0.5)
    labels, said = (_whole(one, f"{name}: {what}", notes) for one, what in ((labels, "labels"), (said, "predictions")))
    if found is None:
        return Answered(said, labels, None, "no probabilities", notes)
    return Answered(said, labels, found.values, "", notes, found.invalid, found.how, derived)


def _single(reference: Answers, current: Answers, name: str) -> bool:
    return getattr(reference, name) is not None or getattr(current, name) is not None


def _whole(values: NDArray[np.float64], what: str, notes: list[str]) -> NDArray[np.float64]:
    """Rows that are known in full; the others as NaN."""
    gaps = np.isnan(values)
    partly = np.asarray(gaps.any(axis=1) & ~gaps.all(axis=1))
    if not partly.any():
        return values
    notes.append(f"{what} of some outputs only are not used: {int(partly.sum()):,} of {len(values):,} rows")
    return np.where(partly[:, None], np.nan, values)
