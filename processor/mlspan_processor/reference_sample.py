"""Stage 5: labelled rows beside a profile, which estimates of performance are fitted on.

``mlspan reference build`` with labels writes ``NAME.sample.npz`` beside ``NAME.json``: at most `MAX_ROWS` rows, drawn
uniformly, features as a payload has them (numbers, and codes of categories). The processor reads it when it takes the
profile over. NumPy's own format without pickled objects: a file can be read without running what is in it.
"""

import logging
import os
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.sample import TASKS, Sample

MAX_ROWS: Final = 20_000
SUFFIX: Final = ".sample.npz"
_log = logging.getLogger(__name__)


def sample_path(profile: Path) -> Path:
    """The file beside a profile.

    >>> sample_path(Path("references/fraud.json")).name
    'fraud.sample.npz'
    """
    return profile.with_name(profile.name.removesuffix(".json") + SUFFIX)


def write_sample(sample: Sample, file: Path) -> None:
    """Write labelled rows whole or not at all.

    Raises:
        OSError: the folder is not there or not writable.
    """
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    temporary = Path(name)
    arrays = {
        "task": np.array(sample.task),
        "names": np.array(sample.names, np.str_),
        "types": np.array(sample.types, np.str_),
        "classes": np.array(sample.classes, np.str_),
        "cells": sample.cells,
        "predictions": sample.predictions,
        "labels": sample.labels,
        "weights": sample.weights,
    }
    if sample.scores is not None:
        arrays["scores"] = sample.scores
    try:
        with os.fdopen(handle, "wb") as out:
            np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # its stub takes the names for options
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_sample(file: Path) -> Sample | None:
    """Read labelled rows; None where there are none, or (which is logged) they cannot be read."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            task = str(arrays["task"])
            if task not in TASKS:
                raise ValueError(f'"{task}" is no task')
            n = len(arrays["weights"])
            sample = Sample(
                task,
                tuple(arrays["names"].tolist()),
                tuple(arrays["types"].tolist()),
                arrays["cells"].astype(np.uint32),
                tuple(arrays["classes"].tolist()),
                arrays["predictions"].astype(np.float64),
                arrays["labels"].astype(np.float64),
                arrays["scores"].astype(np.float64) if "scores" in arrays else None,
                arrays["weights"].astype(np.float64),
            )
            lengths = {sample.cells.shape[1], len(sample.predictions), len(sample.labels), n}
            if len(lengths) > 1 or len(sample.cells) != len(sample.names) or n > MAX_ROWS:
                raise ValueError("its columns do not fit")
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        _log.warning('reference: "%s" holds no labelled rows: %s', file, error)
        return None
    return sample


def in_order(sample: Sample, names: tuple[str, ...], classes: tuple[str, ...]) -> Sample | None:
    """The sample with features and classes in this order; None where it has others."""
    if set(sample.names) != set(names) or set(sample.classes) != set(classes):
        return None
    where = {name: j for j, name in enumerate(sample.names)}
    columns = [where[name] for name in names]
    sample = replace(sample, names=names, types=tuple(sample.types[j] for j in columns), cells=sample.cells[columns])
    if sample.classes == classes:
        return sample
    index = {text: i for i, text in enumerate(classes)}
    new = np.array([index[text] for text in sample.classes], np.float64)
    back = np.argsort(new)
    scores = sample.scores
    if scores is not None:
        scores = 1 - scores if scores.shape[1] == 1 else scores[:, back]

    def mapped(values: NDArray[np.float64]) -> NDArray[np.float64]:
        known = np.isfinite(values)
        result = np.full(len(values), np.nan)
        result[known] = new[values[known].astype(np.intp)]
        return result

    return replace(
        sample, classes=classes, predictions=mapped(sample.predictions), labels=mapped(sample.labels), scores=scores
    )
