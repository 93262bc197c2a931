"""Stage 5, labels: 64-bit keys of prediction ids.

The default id of a row, "{trace id}-{span id}-{row}", gives the same key whether it is computed from a span's
ids (for many rows at once) or read from a label's text; any other id is hashed by BLAKE2b (RFC 7693). Two ids
of n share a key with probability about n² / 2**65: 3e-8 at a million.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import cut_utf8
from mlspan_processor.runs import Keys

_DEFAULT: Final = re.compile(r"[0-9a-fA-F]{32}-[0-9a-fA-F]{16}-[0-9]{1,10}")
# Odd constants of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014).
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


def row_keys(traces: NDArray[np.uint64], spans: NDArray[np.uint64], rows: NDArray[np.uint32]) -> Keys:
    """Keys (n,) of default ids.

    Args:
        traces: (n, 2) the two little-endian halves of each trace id.
        spans: (n,) little-endian span ids.
        rows: (n,) row numbers within the call.
    """
    keys = _mix(traces[:, 0] + _GAMMA)
    keys = _mix(keys ^ traces[:, 1])
    keys = _mix(keys ^ spans)
    return _mix(keys + rows.astype(np.uint64) * _GAMMA)


def id_keys(ids: Sequence[str]) -> Keys:
    """Keys (n,) of ids as text, default ones and the user's own."""
    keys = np.empty(len(ids), np.uint64)
    default = []
    for i, text in enumerate(ids):
        if len(text) >= 51 and _DEFAULT.fullmatch(text):
            default.append(i)
        else:
            keys[i] = int.from_bytes(blake2b(cut_utf8(text), digest_size=8).digest(), "little")
    if default:
        parts = [ids[i].split("-") for i in default]
        traces = np.frombuffer(bytes.fromhex("".join(part[0] for part in parts)), "<u8").reshape(-1, 2)
        spans = np.frombuffer(bytes.fromhex("".join(part[1] for part in parts)), "<u8")
        rows = np.array([int(part[2]) & 0xFFFFFFFF for part in parts], np.uint32)
        keys[default] = row_keys(traces, spans, rows)
    return keys


def spans_of(ids: Sequence[str]) -> tuple[list[int], NDArray[np.uint64], NDArray[np.uint64]]:
    """Which of these ids are default ones (their indices), and of those the traces (n, 2) and spans (n,), as in
    `row_keys`."""
    default = [i for i, text in enumerate(ids) if len(text) >= 51 and _DEFAULT.fullmatch(text)]
    raw = bytes.fromhex("".join(ids[i][:32] + ids[i][33:49] for i in default))
    halves = np.frombuffer(raw, "<u8").reshape(-1, 3)
    return default, halves[:, :2], halves[:, 2]


def _mix(x: Keys) -> Keys:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
