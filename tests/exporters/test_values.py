"""Attribute values as text and as plain Python."""

import orjson

from mlspan_exporters.values import plain_map, text_map

from .requests import EVERY_VALUE, attributes


def test_every_value_has_the_text_of_the_specification() -> None:
    """Each type becomes text by the rules for non-OTLP formats."""
    assert text_map(attributes(EVERY_VALUE)) == {
        "text": 'says "hello"\nwith ü',
        "yes": "true",
        "whole": "-9007199254740993",
        "real": "0.1",
        "round": "3.0",
        "not.a.number": "NaN",
        "infinite": "-Infinity",
        "bytes": "AP9wYXlsb2Fk",
        "list": '["a",1,2.5,"NaN",null,"AQ=="]',
        "map": '{"inner":{"deep":[true]},"nothing":null}',
        "nothing": "",
        "empty.list": "[]",
    }


def test_plain_values_are_json() -> None:
    """Every value can be written as JSON, non-finite numbers as strings."""
    plain = plain_map(attributes(EVERY_VALUE))
    assert orjson.loads(orjson.dumps(plain)) == plain
    assert plain["infinite"] == "-Infinity"
    assert plain["whole"] == -9007199254740993
