"""Fitted models for the fingerprint tests; run as a program it prints the fingerprints of freshly fitted ones."""

import json
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from mlspan.fingerprint import fingerprint


def data(seed: int) -> tuple[pd.DataFrame, Any]:
    """300 rows of six numeric columns and one of categories, and two classes."""
    X, y = make_classification(300, 6, random_state=seed)
    frame = pd.DataFrame(X, columns=[f"c{at}" for at in range(6)])
    frame["kind"] = np.random.default_rng(seed).choice(["a", "b", "c"], 300)
    return frame, y


def models(seed: int) -> dict[str, Any]:
    """One of each, fitted on the data of this seed."""
    frame, y = data(seed)
    X = frame.drop(columns="kind")
    columns = ColumnTransformer(
        [
            ("n", StandardScaler(), ["c0", "c1"]),
            ("k", OneHotEncoder(), ["kind"]),
            ("f", FunctionTransformer(np.abs), ["c2"]),
        ]
    )
    made: dict[str, Any] = {
        "logistic": LogisticRegression().fit(X, y),
        "ridge": Ridge().fit(X, y),
        "sgd": SGDClassifier(random_state=0).fit(X, y),
        "forest": RandomForestClassifier(10, random_state=0, n_jobs=2).fit(X, y),
        "boosting": GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, y),
        "histograms": HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, y),
        "isolation": IsolationForest(n_estimators=5, random_state=0).fit(X),
        "svc": SVC().fit(X, y),
        "neighbours": KNeighborsClassifier().fit(X, y),
        "outliers": LocalOutlierFactor(novelty=True).fit(X.to_numpy()),
        "tree": DecisionTreeClassifier(random_state=0).fit(X, y),
        "bayes": GaussianNB().fit(X, y),
        "perceptron": MLPClassifier((4,), tol=10, n_iter_no_change=1, random_state=np.random.RandomState(0)).fit(
            X[:40], y[:40]
        ),
        "k-means": KMeans(3, random_state=0, n_init=1).fit(X),
        "dbscan": DBSCAN(eps=1.5).fit(X),
        "mixture": GaussianMixture(2, random_state=0).fit(X),
        "process": GaussianProcessClassifier().fit(X[:40], y[:40]),
        "voting": VotingClassifier([("l", LogisticRegression()), ("b", GaussianNB())]).fit(X, y),
        "stacking": StackingClassifier([("l", LogisticRegression()), ("b", GaussianNB())], cv=2).fit(X, y),
        "search": GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2).fit(X, y),
        "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, y),
        "pipeline": make_pipeline(columns, LogisticRegression()).fit(frame, y),
        "texts": TfidfVectorizer(stop_words=["und"]).fit([f"wort{seed} und {kind}" for kind in frame["kind"]]),
        "xgboost": XGBClassifier(n_estimators=5, random_state=0, n_jobs=1).fit(X, y),
        "lightgbm": LGBMClassifier(n_estimators=5, random_state=0, verbose=-1, n_jobs=1).fit(X, y),
    }
    return made


def main(path: Path) -> None:
    """Write the fingerprints of freshly fitted models, and of those that lie in the file, as JSON."""
    fresh = {name: fingerprint(model) for name, model in models(0).items()}
    loaded = {name: fingerprint(model) for name, model in joblib.load(path).items()}
    json.dump({"fresh": fresh, "loaded": loaded}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
