"""Exporters: one file per backend, found by the entry point group ``mlspan_exporter``."""
