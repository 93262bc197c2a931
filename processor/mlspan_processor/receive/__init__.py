"""Stage 1: OTLP over gRPC and HTTP; labels and the report over HTTP."""
