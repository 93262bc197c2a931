"""Stage 5: the label refitted on the reference from the features and the score together.

Where a model has left something unlearnt, its score is not calibrated in every part of the feature space, and a shift
towards one part breaks CBPE; probabilities that know the features follow. Gradient-boosted trees on histograms:
bounded to 100 trees (fewer for many classes), 0.8 million values and 300 features; categories beyond the 200 most
frequent are missing values. Source: scikit-learn's HistGradientBoostingClassifier after Ke et al., NeurIPS 2017.
"""

from typing import Any, Final, Self

import numpy as np

from mlspan_processor.estimate.base import Floats, Integers, Rows, uneven
from mlspan_processor.estimate.encode import Encoder, learnable

_MAX_VALUES: Final = 800_000
_HELD_OUT: Final = 0.12
_TREES: Final = 100
_TREES_IN_ALL: Final = 300


class Refit:
    """Boosted trees on features and scores."""

    def __init__(self, encoder: Encoder, model: Any, classes: Integers) -> None:
        self._encoder = encoder
        self._model = model
        self._classes = classes

    def __repr__(self) -> str:
        return "Refit()"

    @classmethod
    def fit(cls, rows: Rows, labels: Integers, *, seed: int) -> Self:
        """Fit on all of these rows, or on as many as the bound allows."""
        from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 heavy

        encoder = Encoder.fit(rows)
        inputs = encoder.tree_inputs(rows)
        weights = rows.weights
        bound = max(2000, _MAX_VALUES // inputs.shape[1])
        if len(rows) > bound:
            chosen = np.sort(np.random.default_rng(seed).choice(len(rows), bound, replace=False))
            inputs, labels, weights = inputs[chosen], labels[chosen], weights[chosen]
        classes, members = np.unique(labels, return_counts=True)
        if len(classes) < 2:
            return cls(encoder, None, classes)
        trees = _TREES if len(classes) == 2 else max(15, _TREES_IN_ALL // len(classes))
        model = HistGradientBoostingClassifier(
            learning_rate=0.08,
            max_iter=trees,
            max_leaf_nodes=12,
            min_samples_leaf=20,
            l2_regularization=5.0,
            # Few rows want few trees.
            early_stopping=bool(members.min() > 1 and _HELD_OUT * len(labels) >= len(classes)),
            validation_fraction=_HELD_OUT,
            n_iter_no_change=8,
            categorical_features=encoder.tree_categories(),
            random_state=seed,
        )
        model.fit(learnable(inputs), labels, sample_weight=uneven(weights))
        return cls(encoder, model, classes)

    def probabilities(self, rows: Rows) -> Floats:
        """(n, n_classes); 0 for classes without reference labels."""
        result = np.zeros((len(rows), rows.n_classes))
        if self._model is None:
            result[:, self._classes] = 1.0
        else:
            result[:, self._classes] = self._model.predict_proba(self._encoder.tree_inputs(rows))
        return result
