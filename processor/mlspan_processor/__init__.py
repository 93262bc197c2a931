"""The processor: OTLP in; enriched spans, quality and drift out."""
