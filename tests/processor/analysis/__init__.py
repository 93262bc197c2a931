"""Tests of batch analysis."""
