"""Stage 2, part 4: labels from log records.

In: a serialised ExportLogsServiceRequest. Out: the labels of its ``ml.feedback`` records. An event's name is
the record's event_name field, or the attribute event.name of older senders.
"""

from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from mlspan.semconv import attributes as names
from mlspan.semconv.events import ML_FEEDBACK
from mlspan_processor.decode import Feedback, label_of
from mlspan_processor.scopes import text_of

_EVENT_NAME: Final = "event.name"


def log_labels(data: bytes) -> list[Feedback]:
    """The labels of a request's feedback records; records without an id or a label are passed over.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    request = ExportLogsServiceRequest.FromString(data)
    found = []
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                values = {pair.key: pair.value for pair in record.attributes}
                event = record.event_name or (text_of(values[_EVENT_NAME]) if _EVENT_NAME in values else "")
                if event != ML_FEEDBACK or not {names.ML_PREDICTION_ID, names.ML_FEEDBACK_LABEL} <= set(values):
                    continue
                label = label_of(values[names.ML_FEEDBACK_LABEL])
                prediction_id = text_of(values[names.ML_PREDICTION_ID])
                model = text_of(values[names.ML_MODEL_NAME]) if names.ML_MODEL_NAME in values else ""
                if prediction_id and label != "":
                    found.append(Feedback(prediction_id, label, model))
    return found


def log_items(data: bytes) -> int:
    """How many records a request has.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    request = ExportLogsServiceRequest.FromString(data)
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
