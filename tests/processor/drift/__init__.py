"""Tests that mirror mlspan_processor/drift."""
