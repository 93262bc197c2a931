"""Where the time goes inside a pipeline: a span for each of its steps, at every depth, below the call's own.

    OTEL_INSTRUMENTATION_ML_CAPTURE_STEPS=true opentelemetry-instrument --traces_exporter console \\
        --metrics_exporter none --logs_exporter none python examples/pipeline_steps.py

prints a prediction's spans; with ``mlspan run`` in another terminal and ``--traces_exporter otlp`` they go there, and
Jaeger shows them as a tree. The variable says it for all models; here `instrument_model` says it for one.
"""

from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

import mlspan

CHEMISTRY = list(range(10))
COLOURS = [10, 11, 12]


def main() -> None:
    """Fit a pipeline within a pipeline, and ask it once."""
    X, y = load_wine(return_X_y=True)
    prepare = ColumnTransformer(
        [("chemistry", make_pipeline(PowerTransformer(), PCA(5)), CHEMISTRY), ("colours", StandardScaler(), COLOURS)]
    )
    model = Pipeline([("prepare", prepare), ("forest", RandomForestClassifier(50, random_state=0))]).fit(X, y)
    # Two levels: the pipeline's steps, and the transformers of the first one. `steps=3` would show the PCA, too.
    mlspan.instrument_model(model, name="wine", version="1", steps=2)
    print(f"cultivar {model.predict(X[:1])[0]}")


if __name__ == "__main__":
    main()
