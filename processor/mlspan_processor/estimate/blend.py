"""Stage 5: several methods' class probabilities as one: a logarithmic opinion pool whose exponents are fitted.

p_k ∝ exp(b_jk + Σ_m λ_m log p_mk) for a row predicted as j, with λ and b from the log loss of probabilities out of
fold on the reference, shrunk towards given exponents. The shifts b make the expected confusion matrix of the
reference that of its labels. Source: Genest & Zidek, Stat. Sci. 1, 1986; stacking: Wolpert, Neural Networks 5, 1992.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy.special import log_softmax, softmax

from mlspan_processor.estimate.base import Floats, Integers, Rows

_TINY: Final = 1e-4
_PENALTY: Final = 10.0


class Blend:
    """A fitted pool.

    Attributes:
        exponents: (n_methods,) λ; shifts: (n_classes, n_classes) b, rows the predicted class.
    """

    def __init__(self, exponents: Floats, shifts: Floats) -> None:
        self.exponents = exponents
        self.shifts = shifts

    def __repr__(self) -> str:
        return f"Blend({', '.join(f'{one:.2f}' for one in self.exponents)})"

    @classmethod
    def fit(
        cls, parts: Sequence[Floats], rows: Rows, labels: Integers, *, towards: Sequence[float], size: float = 0.0
    ) -> "Blend":
        """Fit to probabilities that did not see these labels.

        Args:
            parts: for each method (n, n_classes) probabilities.
            rows: the rows they are for.
            labels: (n,) class indices.
            towards: (n_methods,) the exponents without any rows.
            size: how many rows these are worth together, the shrinkage's counterweight; 0: as many as there are.
        """
        from scipy.optimize import minimize  # noqa: PLC0415 heavy

        logs = np.stack([_logs(part) for part in parts])
        m, n, k = logs.shape
        hits, said = np.eye(k)[labels], np.eye(k)[rows.predictions]
        first = np.concatenate([np.asarray(towards, np.float64), np.zeros(k * k)])
        weights = rows.weights / rows.weights.sum() * (size or n)

        def loss(theta: Floats) -> tuple[float, Floats]:
            z = np.tensordot(theta[:m], logs, 1) + theta[m:].reshape(k, k)[rows.predictions]
            log_p = log_softmax(z, axis=1)
            off = (np.exp(log_p) - hits) * weights[:, None]
            gradient = np.concatenate([np.einsum("nk,mnk->m", off, logs), (said.T @ off).ravel()])
            gap = theta - first
            value = -float(weights @ log_p[np.arange(n), labels]) + _PENALTY / 2 * float(gap @ gap)
            return value, gradient + _PENALTY * gap

        bounds: Any = [(0.0, 3.0)] * m + [(-5.0, 5.0)] * (k * k)
        found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 100})
        return cls(found.x[:m], found.x[m:].reshape(k, k))

    def of(self, parts: Sequence[Floats], rows: Rows) -> Floats:
        """(n, n_classes) pooled probabilities."""
        logs = np.stack([_logs(part) for part in parts])
        z = np.tensordot(self.exponents, logs, 1) + self.shifts[rows.predictions]
        result: Floats = softmax(z, axis=1)
        return result


def _logs(p: Floats) -> Floats:
    clipped = np.log(np.clip(p, _TINY, 1.0))
    result: Floats = clipped - clipped.mean(axis=1, keepdims=True)
    return result
