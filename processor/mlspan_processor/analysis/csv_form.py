"""Batch, part 1b: how a CSV file is written: what separates its columns, and what its decimals.

In: a path. Out: a Form, from the first 64 KiB. Columns are separated by what the header has most of outside quotes, of
comma, semicolon, tab and bar; a .tsv file's by tabs. Decimals may be commas where columns are not separated by them,
and are where more values read so than with points. The text must be UTF-8, with or without a byte order mark. Memory:
64 KiB. Source: RFC 4180; what spreadsheets write where the decimal point is a comma.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from mlspan_processor.analysis.errors import AnalysisError

HEAD_BYTES: Final = 64 * 1024
_SEPARATORS: Final = ",;\t|"
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class Form(NamedTuple):
    """What separates columns, and whole numbers from their decimals."""

    delimiter: str = ","
    decimal: str = "."


def form_of(path: Path) -> Form:
    """The form of a file.

    Raises:
        OSError: it cannot be read.
        AnalysisError: it is UTF-16.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        head: bytes = stream.read(HEAD_BYTES)
    if head.startswith(_UTF_16):
        raise AnalysisError(f'"{path}" cannot be read: it is UTF-16; must be UTF-8')
    header, _, rows = head.decode("utf-8", "replace").partition("\n")
    delimiter = "\t"
    if ".tsv" not in (suffix.lower() for suffix in path.suffixes):
        bare = _QUOTED.sub("", header)
        delimiter = max(_SEPARATORS, key=bare.count)
    return Form(delimiter, "." if delimiter == "," else _decimal(rows, delimiter))


def _decimal(rows: str, delimiter: str) -> str:
    """A comma where more values are numbers with one comma than with one point."""
    ends = re.escape(delimiter) + r"\r\n"
    number = rf'(?:^|(?<=[{ends}]))"?[-+]?\d+({{}})\d+(?:[eE][-+]?\d+)?"?(?=[{ends}])'
    commas, points = (len(re.findall(number.format(mark), rows)) for mark in (",", r"\."))
    return "," if commas > points else "."
