"""A small application: fits, predicts one batch and row by row, and prints its answers. Run under instrumentation."""

import os
import sys

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

import mlspan

rng = np.random.default_rng(int(os.environ.get("SEED", "0")))
calls = int(os.environ.get("CALLS", "200"))
names = ["age", "income", "debt", "tenure"]
x = rng.standard_normal((2000, 4))
y = np.where(x[:, 0] + x[:, 1] + rng.standard_normal(2000) > 0, "good", "bad")
model = LogisticRegression().fit(pd.DataFrame(x, columns=names), y)
model = mlspan.instrument_model(model, name="credit", version=os.environ.get("VERSION", "1"))
for _ in range(int(os.environ.get("BATCHES", "1"))):
    model.predict_proba(pd.DataFrame(rng.standard_normal((3000, 4)), columns=names))
for i in range(calls):
    row = pd.DataFrame(rng.standard_normal((1, 4)), columns=names)
    if i == calls - 1:
        row.iloc[0, 1] = 50.0  # far outside anything seen before
    with mlspan.prediction_context(prediction_id=f"order-{i}"):
        [answer] = model.predict(row)
    sys.stdout.write(f"order-{i},{answer}\n")
