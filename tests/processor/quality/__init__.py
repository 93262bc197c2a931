"""Tests that mirror mlspan_processor/quality."""
