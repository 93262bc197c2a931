"""Tests of estimated performance."""
