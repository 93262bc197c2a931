"""Codes of texts, their caches, and the examples in the capture stage's docstrings."""

import doctest
import importlib
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlspan import columns
from mlspan.columns import Categories, TextCodes, encode
from mlspan.config import Settings
from mlspan.payload import category_code
from mlspan.selection import MAX_SELECTORS, _selectors, selector_of

KEY = b"k"


@pytest.mark.parametrize("name", ["columns", "fingerprint", "payload", "selection"])
def test_docstring_examples(name: str) -> None:
    """The examples in docstrings are true."""
    failures, tests = doctest.testmod(importlib.import_module(f"mlspan.{name}"))
    assert (failures, tests > 0) == (0, True)


def test_text_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many texts come, few are kept, long ones never, and all codes stay right."""
    monkeypatch.setattr(columns, "MAX_TEXT_CODES", 100)
    codes = TextCodes(KEY)
    texts = [f"text {at % 150}" for at in range(1_000)]
    assert codes.of(texts, 1_000).tolist() == [category_code(text, KEY) for text in texts]
    assert len(codes) <= 100
    long = "x" * 1_000
    assert codes[long] == category_code(long, KEY)
    assert long not in codes


def test_equal_keys_of_other_types_have_their_own_texts() -> None:
    """1, 1.0, True and "1" are told apart whichever came first."""
    codes = TextCodes(KEY)
    values: list[Any] = [1, 1.0, True, "1", np.int64(1), np.float64(1), np.bool_(True)]
    expected = [category_code(text, KEY) for text in ("1", "1.0", "True", "1", "1", "1.0", "True")]
    for _ in range(2):
        assert codes.of(values, len(values)).tolist() == expected
        values.reverse()
        expected.reverse()


def test_category_tables_follow_the_object() -> None:
    """Another list of categories at the same address, or of the same positions, has its own codes."""
    codes = TextCodes(KEY)
    for labels in (["a", "b"], ["c", "d"], ["e", "f"]):
        for _ in range(3):
            index = pd.Index(labels)
            found = encode(Categories(np.array([1, -1, 0], np.int8), index, index), codes)
            assert found is not None
            expected = [category_code(labels[1], KEY), 0, category_code(labels[0], KEY)]
            assert found[1].tolist() == expected
            del index
    plain = Categories(np.array([0, -1]), ["a"])
    found = encode(plain, codes)
    assert found is not None
    assert found[1].tolist() == [category_code("a", KEY), 0]
    assert plain.values().tolist() == ["a", None]


def test_category_tables_are_bounded() -> None:
    """Tables of lists that are alive are dropped when there are too many."""
    codes = TextCodes(KEY)
    alive = [pd.Index([str(at)]) for at in range(columns.MAX_CATEGORY_TABLES + 50)]
    for at, index in enumerate(alive):
        found = encode(Categories(np.array([0]), index, index), codes)
        assert found is not None
        assert found[1].tolist() == [category_code(str(at), KEY)]
    assert len(codes._tables) <= columns.MAX_CATEGORY_TABLES


def test_threads_share_the_cache() -> None:
    """Many threads that fill and clear the cache get right codes."""
    codes = TextCodes(KEY)
    wrong: list[str] = []

    def work(start: int) -> None:
        for at in range(start, start + 3_000):
            text = str(at % 1_000)
            if codes[text] != category_code(text, KEY):
                wrong.append(text)
            if at % 500 == 0:
                codes.clear()

    threads = [threading.Thread(target=work, args=(start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_settings_have_one_selector() -> None:
    """What follows from the settings is prepared once for each settings object, for a few of them."""
    settings = Settings()
    assert selector_of(settings) is selector_of(settings)
    several = [Settings(max_rows=at + 1) for at in range(50)]
    for one in several:
        assert selector_of(one).max_rows == one.max_rows
    assert len(_selectors) <= MAX_SELECTORS
