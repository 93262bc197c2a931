"""The smallest use: a model, named rows, and the truth told later.

    opentelemetry-instrument --traces_exporter console --metrics_exporter none --logs_exporter none \\
        python examples/quickstart.py

prints the spans; with ``mlspan run`` in another terminal and ``--traces_exporter otlp`` they go there.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlspan


def main() -> None:
    """Fit, predict three patients, tell the truth about them."""
    data = load_breast_cancer(as_frame=True)
    labels = data.target.map({0: "malignant", 1: "benign"})
    train, test, y_train, y_test = train_test_split(data.data, labels, random_state=0, stratify=labels)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, y_train)
    # Optional: without it the model is named by its class and a fingerprint of what was fitted.
    mlspan.instrument_model(model, name="tumour", version="1")
    for patient in test.index[:3]:
        with mlspan.prediction_context(prediction_id=f"patient-{patient}"):
            [answer] = model.predict(test.loc[[patient]])
        print(f"patient {patient}: {answer}")
    for patient in test.index[:3]:
        mlspan.feedback(prediction_id=f"patient-{patient}", label=y_test[patient], model="tumour")


if __name__ == "__main__":
    main()
