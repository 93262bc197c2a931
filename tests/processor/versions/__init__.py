"""Tests that mirror mlspan_processor/versions."""
