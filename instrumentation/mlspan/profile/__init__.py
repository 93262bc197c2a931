"""The reference profile of a model version: what it is, how it is built, how it is written down."""

from mlspan.profile.build import NO_PREDICTION, build_profile
from mlspan.profile.cells import (
    BINS,
    BOOLEAN,
    CATEGORICAL,
    MAX_CODES,
    NUMERIC,
    TYPES,
    Anomaly,
    FeatureProfile,
    Profile,
    ProfileError,
    Weights,
    cell_costs,
    cells_of,
    tail_of,
)
from mlspan.profile.text import from_json, to_json

__all__ = [
    "BINS",
    "BOOLEAN",
    "CATEGORICAL",
    "MAX_CODES",
    "NO_PREDICTION",
    "NUMERIC",
    "TYPES",
    "Anomaly",
    "FeatureProfile",
    "Profile",
    "ProfileError",
    "Weights",
    "build_profile",
    "cell_costs",
    "cells_of",
    "from_json",
    "tail_of",
    "to_json",
]
