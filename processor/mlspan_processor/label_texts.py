"""Stage 5, labels: which class a label means.

In: a label as text or number. Out: the class texts that say the same, the most literal first. A class is
written as str() of its Python value: "1" of an int, "1.0" of a float, "True" of a bool. Whoever sends its truth
later writes 1, 1.0, "1", true or "true" for it, as a table, JSON or a database has it, and Python calls them equal.
"""

import re
from typing import Final

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?")
"""Numbers without leading zeros or exponents: "007" and "1e3" are names."""
_TRUTHS: Final = {"true": "1", "false": "0"}
_WORDS: Final = {"1": "True", "0": "False"}


def class_text(label: str | float) -> str:
    """The text of a label as a class of its own."""
    if isinstance(label, str):
        return label
    return str(int(label)) if label == int(label) else str(label)


def class_texts(label: str | float) -> tuple[str, ...]:
    """All class texts that say the same as a finite label.

    >>> class_texts(1.0)
    ('1', '1.0', 'True', 'true')
    >>> class_texts("true")
    ('true', 'True', '1', '1.0')
    >>> class_texts("007")
    ('007',)
    """
    text = class_text(label)
    number = _TRUTHS.get(text.lower(), text)
    if not _NUMBER.fullmatch(number):
        return (text,)
    whole = number.partition(".")[0] if float(number).is_integer() else ""
    if whole == "-0":
        whole = "0"
    words = [text]
    if number is not text:
        words.append(_WORDS[number])
    truth = _WORDS.get(whole, "")
    words += [whole, f"{whole}.0", truth, truth.lower()] if whole else [str(float(number))]
    return tuple(dict.fromkeys(word for word in words if word))
