"""Batch, part 4: what the model is for, and its answers as class indices or numbers.

In: the Answers of both files and what the user said. Out: a Model (task, classes, what was inferred), and for each
file its Answered rows; those of several outputs are made by outputs.py. Classes are those of the reference, sorted as
scikit-learn sorts them; the positive one of two is the last, or the one that the only probability column is named for.
Values that mean the same (1, 1.0, "1", True) are the same class.

Odd values: a probability outside [0, 1], or of a row that does not sum to 1 (within 0.01), is not used. A label or
prediction of a class that two-class references do not know is not used. Both are counted in the notes.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.answered import Answered, Model, Scores, valid
from mlspan_processor.analysis.answers import Answers
from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.outputs import Pairs, answered_outputs, model_of_outputs
from mlspan_processor.analysis.raw import Raw
from mlspan_processor.label_texts import class_texts
from mlspan_processor.sample import Task

MAX_CLASSES: Final = 1000
MOST_CLASSES_OF_NUMBERS: Final = 100
"""More different whole numbers than this are a quantity, not classes."""
CHOICES: Final = ("binary", "multiclass", "multilabel", "regression")


def model_of(task: str | None, reference: Answers, current: Answers, pairs: Pairs) -> Model:
    """The task, given or inferred, and the classes.

    Args:
        task: what the user said, or None.
        reference, current: both files' answers.
        pairs: (class or "", column) of each probability.

    Raises:
        AnalysisError: the columns leave it open, or do not fit the task.
    """
    if task is not None and task not in CHOICES:
        raise AnalysisError(f'--task "{task}": must be one of {", ".join(CHOICES)}')
    several = [one for answers in (reference, current) for one in (answers.labels, answers.predictions)]
    if task == "multilabel" or any(one is not None for one in several):
        return model_of_outputs(task, reference, current, pairs)
    known = [one for one in (reference.label, reference.prediction) if one is not None]
    known = known or [one for one in (current.label, current.prediction) if one is not None]
    if not known and not pairs:
        return Model(_checked(task), ())
    inferred = []
    if task is None:
        task, why = _inferred(known, pairs)
        inferred.append(f"task {task}: {why}")
    if task == "regression":
        return Model("regression", (), tuple(inferred))
    classes = _classes(task, known, current, pairs)
    if task == "binary" and len(pairs) < 2 and not (pairs and pairs[0][0]):
        inferred.append(f'the positive class is "{classes[-1]}", the last')
    if reference.prediction is None and current.prediction is None and pairs:
        rule = "a probability above 0.5" if task == "binary" else "the largest probability"
        inferred.append(f"predictions: the class of {rule}")
    return Model(_checked(task), classes, tuple(inferred), _strange(classes, known, current, pairs))


def answered(answers: Answers, model: Model, name: str) -> Answered:
    """A file's answers in the model's classes; `name` is the file's, for the notes."""
    nothing = np.full(answers.rows, np.nan)
    if model.task is None:
        return Answered(nothing, nothing, None)
    if model.task == "multilabel":
        return answered_outputs(answers, model, name)
    if model.task == "regression":
        numbers = []
        for what, raw in (("label", answers.label), ("prediction", answers.prediction)):
            values = nothing if raw is None else raw.values()
            if raw is not None and raw.numbers is None and not np.isfinite(values).any() and not raw.missing().all():
                raise AnalysisError(f"{name}: the {what} column holds texts; a regression needs numbers")
            numbers.append(np.where(np.isfinite(values), values, np.nan))
        return Answered(numbers[1], numbers[0], None)
    notes: list[str] = []
    labels, unknown = _indices(answers.label, model.classes, f"{name}: labels", notes, answers.rows)
    predictions, _ = _indices(answers.prediction, model.classes, f"{name}: predictions", notes, answers.rows)
    strange, which = None, _some([*unknown, *model.strange])
    if which and answers.label is not None:
        strange = np.isin(labels, [model.classes.index(one) for one in model.strange])
        strange |= np.isnan(labels) & ~answers.label.missing()
    found = _scores(answers, model, name, notes)
    if found is None:
        return Answered(predictions, labels, None, "no probabilities", notes, strange=strange, strange_classes=which)
    scores, derived = found.values, answers.prediction is None
    if derived:
        known = ~np.isnan(scores).any(axis=1)
        best = scores[:, 0] > 0.5 if scores.shape[1] == 1 else np.nan_to_num(scores).argmax(axis=1)
        predictions = np.where(known, best.astype(np.float64), np.nan)
    return Answered(predictions, labels, scores, "", notes, found.invalid, found.how, derived, strange, which)


def _checked(task: str | None) -> Task | None:
    for one in ("binary", "multiclass", "regression"):
        if task == one:
            return one
    return None


def _inferred(known: Sequence[Raw], pairs: Pairs) -> tuple[str, str]:
    found = list(dict.fromkeys(text for raw in known for text in raw.distinct(MOST_CLASSES_OF_NUMBERS + 2)))
    kinds = len(_merged(found))
    if len(pairs) == 1:
        if kinds > 2:
            raise AnalysisError(
                f"one probability column, but {kinds} classes ({_some(found)}): give one for each class"
                " (--probability CLASS=COL) or say --task"
            )
        return "binary", "one probability column"
    if pairs:
        task = "binary" if len(pairs) == 2 and kinds <= 2 else "multiclass"
        return task, f"{len(pairs)} probability columns"
    if any(raw.numbers is None for raw in known):
        return ("binary" if kinds <= 2 else "multiclass"), f"labels and predictions are {_some(found)}"
    fractions = [_fractional(raw) for raw in known]
    if any(fractions):
        # A score where a class was meant is the likeliest slip of all.
        scores = all(_in_unit(raw) for raw, fraction in zip(known, fractions, strict=True) if fraction)
        whole = [raw for raw, fraction in zip(known, fractions, strict=True) if not fraction]
        if scores and any(len(raw.distinct(3)) <= 2 for raw in whole):
            raise AnalysisError(
                "one of label and prediction holds two values, the other fractions between 0 and 1:"
                " say --task regression, or name the fractions with --probability"
            )
        return "regression", "labels and predictions are numbers with fractions"
    if kinds <= 2:
        return "binary", f"labels and predictions are {_some(found)}"
    if kinds > MOST_CLASSES_OF_NUMBERS:
        return "regression", f"labels and predictions are more than {MOST_CLASSES_OF_NUMBERS} different whole numbers"
    raise AnalysisError(
        f"labels and predictions are {kinds} whole numbers ({_some(found)}): classes or quantities?"
        " Say --task multiclass or --task regression"
    )


def _fractional(raw: Raw) -> bool:
    assert raw.numbers is not None
    finite = raw.numbers[np.isfinite(raw.numbers)]
    return bool((finite != np.round(finite)).any())


def _in_unit(raw: Raw) -> bool:
    assert raw.numbers is not None
    finite = raw.numbers[np.isfinite(raw.numbers)]
    return bool(((finite >= 0) & (finite <= 1)).all())


def _classes(task: str, known: Sequence[Raw], current: Answers, pairs: Pairs) -> tuple[str, ...]:
    named = [name for name, _ in pairs if name]
    if named and len(named) != len(pairs):
        raise AnalysisError("name the class of each probability (CLASS=COL), or of none")
    late = [one for one in (current.label, current.prediction) if one is not None]
    found = _merged([text for raw in known for text in raw.distinct(MAX_CLASSES + 1)] + named)
    if task == "multiclass" or len(found) < 2:
        found = _merged(found + [text for raw in late for text in raw.distinct(MAX_CLASSES + 1)])
    if len(found) > MAX_CLASSES:
        raise AnalysisError(f"more than {MAX_CLASSES} classes ({_some(found)}): say --task regression for quantities")
    if task == "binary":
        if len(found) > 2:
            raise AnalysisError(f"{len(found)} classes ({_some(found)}): say --task multiclass")
        return _two(found, named)
    if pairs and not named and len(pairs) != len(found):
        raise AnalysisError(
            f"{len(pairs)} probability columns for {len(found)} classes ({_some(found)}): name them, CLASS=COL"
        )
    return tuple(_sorted(found))


def _strange(classes: Sequence[str], known: Sequence[Raw], current: Answers, pairs: Pairs) -> tuple[str, ...]:
    """The classes of labels alone that neither the reference nor the model has."""
    if len(classes) == 2 or (pairs and not pairs[0][0]):
        return ()
    said = [*known, *([] if current.prediction is None else [current.prediction])]
    told = [text for raw in said for text in raw.distinct(MAX_CLASSES + 1)] + [name for name, _ in pairs]
    return tuple(one for one in classes if _place(one, told) < 0)


def _two(found: list[str], named: list[str]) -> tuple[str, ...]:
    """Exactly two classes, the positive one last."""
    if len(found) < 2:
        [only] = found or ["1"]
        opposite = {"0": "1", "1": "0", "-1": "1", "True": "False", "False": "True", "0.0": "1.0", "1.0": "0.0"}
        other = opposite.get(only, f"not {only}")
        found = _sorted([only, other]) if only in opposite else [other, only]
    found = _sorted(found) if all(not one.startswith("not ") for one in found) else found
    if len(named) == 1:
        positive = _place(named[0], found)
        found = [text for i, text in enumerate(found) if i != positive] + [found[positive]]
    return tuple(found)


def _place(text: str, classes: Sequence[str]) -> int:
    """The class that a text means, -1 for none."""
    return next((classes.index(one) for one in class_texts(text) if one in classes), -1)


def _merged(texts: Sequence[str]) -> list[str]:
    """Texts that mean different classes, each once."""
    found: dict[str, None] = {}
    for text in texts:
        if not any(one in found for one in class_texts(text)):
            found[text] = None
    return list(found)


def _sorted(texts: Sequence[str]) -> list[str]:
    try:
        return sorted(texts, key=float)
    except ValueError:
        return sorted(texts)


def _some(texts: Sequence[str]) -> str:
    shown = ", ".join(f'"{text}"' for text in texts[:5])
    return f"{shown}, …" if len(texts) > 5 else shown


def _indices(
    raw: Raw | None, classes: Sequence[str], what: str, notes: list[str], rows: int
) -> tuple[NDArray[np.float64], list[str]]:
    """(n_rows,) class indices, NaN where there is none of these classes; and the texts that are of none."""
    if raw is None:
        return np.full(rows, np.nan), []
    codes, texts = raw.coded()
    places = np.array([*(_place(text, classes) for text in texts), -1], np.float64)
    values = places[codes]
    values[values < 0] = np.nan
    strange = [text for text, place in zip(texts, places.tolist(), strict=False) if place < 0]
    unknown = int((np.isnan(values) & ~raw.missing()).sum())
    if unknown:
        notes.append(f"{what} of unknown classes ({_some(strange)}) are not used: {unknown:,} of {rows:,} rows")
    return values, strange


def _scores(answers: Answers, model: Model, name: str, notes: list[str]) -> Scores | None:
    given = answers.probabilities
    if given is None:
        return None
    n_classes = len(model.classes)
    width = given.shape[1]
    places = [_place(one, model.classes) if one else i for i, one in enumerate(answers.classes)]
    if len(set(places)) < len(places):
        twice = next(one for i, one in enumerate(answers.classes) if places[i] in places[:i])
        raise AnalysisError(f'--probability names the class "{twice}" twice; must name a column for each class')
    found = valid(given, width > 1, name, notes)
    if width == 1:
        return found
    scores = np.zeros((answers.rows, n_classes), given.dtype)
    scores[:, places] = found.values
    scores[np.isnan(found.values[:, 0])] = np.nan
    return found._replace(values=scores[:, 1:] if n_classes == 2 else scores)
