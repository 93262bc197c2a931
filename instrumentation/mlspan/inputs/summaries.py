"""Stage 2, capture: images, token ids, sequences and embeddings as a few numbers in which drift shows.

Reads sampled rows of such an input at fixed positions (numpy), writes (n_rows, n_features) float32: statistics, and a
random projection to 16 dimensions. Guarantee: at most POSITIONS values of a row are read; the projection is the same in
every process and version, since its signs are hashes of the positions (splitmix64), and touches no random state.
Memory: a layout of at most 100 KiB per shape, at most MAX_LAYOUTS, and 1 MiB of signs once there are token ids.

Sources: Johnson and Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space" (1984); signs as
coefficients: Achlioptas, "Database-friendly random projections" (2003); the generator: Steele, Lea and Flood, "Fast
splittable pseudorandom number generators" (2014).
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

POSITIONS: Final = 512
"""Values of one row that are read, evenly spaced: of an image, a grid over each channel."""
DIMENSIONS: Final = 16
MAX_CHANNELS: Final = 4
"""Images of more channels are summarised as a whole."""
MAX_GRID: Final = 16
SEQUENCE_STEPS: Final = 16
MAX_LAYOUTS: Final = 128
SEED: Final = 0x6D6C7370616E
_TOKEN_SIGNS: Final = 1 << 14
_STATISTICS: Final = ("mean", "std", "min", "max")
_PROJECTIONS: Final = tuple(f"projection{at}" for at in range(DIMENSIONS))

F8 = NDArray[np.float64]


def signs(keys: NDArray[np.uint64], dimensions: int = DIMENSIONS) -> F8:
    """(n_keys, dimensions) of -1 and 1: bit j of the key's hash.

    >>> signs(np.array([0, 1], np.uint64), 4).tolist()
    [[-1.0, -1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]]
    """
    with np.errstate(over="ignore"):
        mixed = (keys.astype(np.uint64) + np.uint64(SEED)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    bits = (mixed[:, None] >> np.arange(dimensions, dtype=np.uint64)) & np.uint64(1)
    return bits.astype(np.float64) * 2.0 - 1.0


def projection(values: F8) -> F8:
    """(n_rows, n_values) as (n_rows, 16), for outputs: dot products with the signs of the positions, over √n_values."""
    width = values.shape[1]
    return values @ (signs(np.arange(width, dtype=np.uint64)) / math.sqrt(max(width, 1)))


class Layout:
    """How the rows of one shape are read and summarised.

    Attributes:
        names: of the features.
        positions: (n_positions,) positions of the values that are read, within a row in C order; None: all.
        shape: of a row.
    """

    __slots__ = ("indices", "last", "names", "positions", "shape")

    def __init__(self, names: tuple[str, ...], positions: NDArray[np.intp] | None, shape: tuple[int, ...]) -> None:
        self.names = names
        self.positions = positions
        self.shape = shape
        # The same positions along each dimension, for inputs that do not lie in C order.
        self.indices = () if positions is None else tuple(np.unravel_index(positions, shape))
        # The same positions where the first dimension lies innermost (torch's memory format "channels last").
        self.last: NDArray[np.intp] | None = None
        if positions is not None and len(shape) > 1:
            moved = (*self.indices[1:], self.indices[0])
            self.last = np.ravel_multi_index(moved, (*shape[1:], shape[0])).astype(np.intp)

    def features(self, raw: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:
        """The features of (n_rows, n_positions) values; (n_rows, n_features)."""
        raise NotImplementedError


class Columns(Layout):
    """Every value a feature."""

    __slots__ = ()

    def __init__(self, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__(names, None, shape)

    def features(self, raw: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:  # noqa: ARG002
        """The values themselves."""
        return raw.reshape(len(raw), math.prod(raw.shape[1:]))


class Groups(Layout):
    """Groups of equally many values: the channels of an image, or all values of a vector.

    Mean, standard deviation, minimum and maximum of each group; the root mean square and the projection of all.
    """

    __slots__ = ("_groups", "_means", "_weights")

    def __init__(
        self, names: tuple[str, ...], positions: NDArray[np.intp], shape: tuple[int, ...], keys: NDArray[np.uint64]
    ) -> None:
        """`positions` are grouped; `keys` say where in an image or vector of any size each of them lies."""
        groups = len(names) or 1
        each = len(positions) // groups
        heads = [f"{name}." if name else "" for name in names]
        super().__init__(
            (*(head + statistic for head in heads for statistic in _STATISTICS), "norm", *_PROJECTIONS),
            positions,
            shape,
        )
        self._groups = groups
        means = np.kron(np.eye(groups), np.full((each, 1), 1.0 / each)) if each else np.zeros((0, groups))
        self._means = means
        self._weights = np.hstack((means, signs(keys) / math.sqrt(max(len(keys), 1))))

    def features(self, raw: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:  # noqa: ARG002
        """See the class; one matrix product for means and projection."""
        groups, rows = self._groups, len(raw)
        values = raw.astype(np.float64)
        out = np.empty((rows, 4 * groups + 1 + DIMENSIONS))
        found = values @ self._weights
        squares = (values * values) @ self._means
        grouped = values.reshape(rows, groups, -1)
        means = found[:, :groups]
        out[:, 0 : 4 * groups : 4] = means
        out[:, 1 : 4 * groups : 4] = np.sqrt(np.maximum(squares - means * means, 0.0))
        np.minimum.reduce(grouped, 2, out=out[:, 2 : 4 * groups : 4])
        np.maximum.reduce(grouped, 2, out=out[:, 3 : 4 * groups : 4])
        out[:, 4 * groups] = np.sqrt(np.add.reduce(squares, 1) / groups)
        out[:, 4 * groups + 1 :] = found[:, groups:]
        return out


class Sequence(Layout):
    """(n_steps, n_dimensions) a row: statistics of all values, norms of the steps, projection of the mean step."""

    __slots__ = ("_signs", "_steps")

    def __init__(self, shape: tuple[int, ...]) -> None:
        steps, width = shape
        at = spread(steps, SEQUENCE_STEPS)
        dims = spread(width, POSITIONS // max(len(at), 1))
        super().__init__(
            ("length", *_STATISTICS, "norm.mean", "norm.std", *_PROJECTIONS),
            (at[:, None] * width + dims).ravel(),
            shape,
        )
        self._steps = len(at)
        self._signs = signs(dims.astype(np.uint64)) / math.sqrt(max(len(dims), 1))

    def features(self, raw: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:  # noqa: ARG002
        """See the class."""
        rows = len(raw)
        values = raw.astype(np.float64)
        steps = values.reshape(rows, self._steps, -1)
        norms = np.sqrt(np.square(steps).mean(axis=2))
        length = np.full((rows, 1), float(self.shape[0]))
        flat = (values.mean(axis=1), values.std(axis=1), values.min(axis=1), values.max(axis=1))
        parts = (*(part[:, None] for part in flat), norms.mean(axis=1)[:, None], norms.std(axis=1)[:, None])
        return np.hstack((length, *parts, steps.mean(axis=1) @ self._signs))


class Tokens(Layout):
    """(n_tokens,) ids a row: tokens that are no padding, share of padding, projection of the counts of ids.

    The projection is that of the relative frequencies of the ids, each id with its own signs (one of 16,384): which
    words there are shows, which text it was does not.
    """

    __slots__ = ("_pad",)

    def __init__(self, shape: tuple[int, ...], pad: int | None) -> None:
        (width,) = shape
        super().__init__(("length", "pad_share", *_PROJECTIONS), spread(width, POSITIONS), shape)
        self._pad = pad

    def features(self, raw: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:
        """See the class; `mask`: (n_rows, n_positions), 0 where there is padding."""
        rows = len(raw)
        if mask is None:
            present = np.ones(raw.shape, np.float32) if self._pad is None else (raw != self._pad).astype(np.float32)
        else:
            present = (mask != 0).astype(np.float32)
        known = present.mean(axis=1, keepdims=True)
        table = _token_signs()
        found = table[raw.astype(np.int64) & (_TOKEN_SIGNS - 1)]
        counts = np.matmul(present[:, None, :], found).reshape(rows, DIMENSIONS)
        total = np.maximum(present.sum(axis=1, keepdims=True), 1.0)
        return np.hstack((known * self.shape[0], 1.0 - known, counts / total))


def summary(layout: Layout, raw: NDArray[Any], mask: NDArray[Any] | None = None) -> NDArray[Any]:
    """The features of (n_rows, n_positions) values, (n_rows, n_features); NaN where a row holds nothing."""
    if type(layout) is not Columns and not raw.size:
        return np.full((len(raw), len(layout.names)), np.nan)
    with np.errstate(all="ignore"):
        return layout.features(raw, mask)


def spread(count: int, most: int) -> NDArray[np.intp]:
    """At most `most` of the numbers 0 … count - 1, evenly spaced, each in the middle of its stretch.

    >>> spread(10, 5).tolist(), spread(3, 5).tolist()
    ([1, 3, 5, 7, 9], [0, 1, 2])
    """
    chosen = min(count, most)
    return ((np.arange(chosen) * 2 + 1) * count // (2 * max(chosen, 1))).astype(np.intp)


def image(shape: tuple[int, ...]) -> Layout:
    """Channels and two or more further dimensions; channels last where only that can be (height, width, 1 to 4)."""
    last = shape[0] > MAX_CHANNELS and shape[-1] <= MAX_CHANNELS
    channels = shape[-1] if last else shape[0]
    inner = shape[:-1] if last else shape[1:]
    told = 0 < channels <= MAX_CHANNELS
    kept = spread(channels, MAX_CHANNELS if told else POSITIONS // 16)
    side = int((POSITIONS / max(len(kept), 1)) ** (1.0 / len(inner)))
    along = [spread(size, min(MAX_GRID, max(side, 1))) for size in inner]
    grid = np.meshgrid(kept, *along, indexing="ij")
    order = (*grid[1:], grid[0]) if last else tuple(grid)
    positions = np.ravel_multi_index(order, shape).ravel().astype(np.intp)
    keys = np.arange(len(positions), dtype=np.uint64)
    return Groups(tuple(f"channel{at}" for at in range(channels)) if told else ("",), positions, shape, keys)


def vector(shape: tuple[int, ...]) -> Layout:
    """Any other shape, as one vector."""
    positions = spread(math.prod(shape), POSITIONS)
    return Groups(("",), positions, shape, positions.astype(np.uint64))


_signs: list[NDArray[np.float32]] = []


def _token_signs() -> NDArray[np.float32]:
    if not _signs:
        _signs.append(signs(np.arange(_TOKEN_SIGNS, dtype=np.uint64)).astype(np.float32))
    return _signs[0]
