"""Tests that mirror mlspan_processor/segments."""
