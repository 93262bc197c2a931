"""Small boosters and ONNX models for the tests, and what they read of a span."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxruntime
import xgboost
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mlspan.payload import decode
from tests.instrumentation.conftest import Recorder
from tests.torch.payloads import Seen

ROWS, COLUMNS = 60, 4


def data(classes: int = 2) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(60, 4) numbers, and as many classes."""
    X = np.random.default_rng(7).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    edges = np.linspace(-1, 1, classes + 1)[1:-1]
    return X, np.digitize(X[:, 0] + X[:, 1], edges)


def xgb(objective: str = "binary:logistic", classes: int = 0, **parameters: Any) -> xgboost.Booster:
    """A booster of three rounds."""
    X, y = data(max(classes, 2))
    more = {"num_class": classes} if classes else {}
    settings = {"objective": objective, "nthread": 1, "max_depth": 2, **more, **parameters}
    return xgboost.train(settings, xgboost.DMatrix(X, label=y), 3)


def lgb(objective: str = "binary", classes: int = 1, **parameters: Any) -> lightgbm.Booster:
    """A booster of three rounds."""
    X, y = data(max(classes, 2))
    settings = {"objective": objective, "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5, **parameters}
    return lightgbm.train({**settings, "num_class": classes}, lightgbm.Dataset(X, y), 3)


def onnx_model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None) -> bytes:
    """A model as bytes; inputs and outputs as `value` makes them."""
    graph = helper.make_graph(nodes, "made-by-a-test", inputs, outputs, weights or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def value(name: str, kind: int = TensorProto.FLOAT, *shape: int | None) -> Any:
    """An input or output: (None, 4) numbers if nothing else is said."""
    return helper.make_tensor_value_info(name, kind, list(shape) or [None, COLUMNS])


def linear(outputs: int, last: str = "", name: str = "y") -> bytes:
    """(n, 4) times a matrix; `last` is put behind it: Softmax, LogSoftmax, Sigmoid."""
    weights = np.random.default_rng(3).standard_normal((COLUMNS, outputs)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z" if last else name])]
    if last:
        nodes.append(helper.make_node(last, ["z"], [name]))
    initial = [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel())]
    return onnx_model(nodes, [value("x")], [value(name, TensorProto.FLOAT, None, outputs)], initial)


def classifier(labels: list[str] | list[int], zipmap: bool = False) -> bytes:
    """What skl2onnx makes of a logistic regression: a label, and probabilities as a matrix or as dictionaries."""
    weights = np.random.default_rng(5).standard_normal((len(labels), COLUMNS))
    texts = bool(labels) and isinstance(labels[0], str)
    scores = "probabilities" if not zipmap else "raw"
    common: dict[str, Any] = {"domain": "ai.onnx.ml"}
    own: dict[str, Any] = {"classlabels_strings" if texts else "classlabels_ints": labels}
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", scores],
            coefficients=weights.ravel().tolist(),
            intercepts=[0.0] * len(labels),
            multi_class=1,
            post_transform="SOFTMAX",
            **own,
            **common,
        )
    ]
    kind = TensorProto.STRING if texts else TensorProto.INT64
    outputs = [value("label", kind, None)]
    if zipmap:
        own = {"classlabels_strings" if texts else "classlabels_int64s": labels}
        nodes.append(helper.make_node("ZipMap", ["raw"], ["output_probability"], **own, **common))
        item = helper.make_map_type_proto(kind, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs.append(helper.make_value_info("output_probability", helper.make_sequence_type_proto(item)))
    else:
        outputs.append(value("probabilities", TensorProto.FLOAT, None, len(labels)))
    return onnx_model(nodes, [value("x")], outputs)


def session(model: bytes | Path) -> onnxruntime.InferenceSession:
    """Of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


def one(recorder: Recorder) -> Seen:
    """The only span since the last look."""
    (span,) = recorder.spans()
    return Seen(span)


__all__ = [
    "COLUMNS",
    "ROWS",
    "Seen",
    "classifier",
    "data",
    "decode",
    "lgb",
    "linear",
    "one",
    "onnx_model",
    "session",
    "value",
    "xgb",
]
