"""Tests of the detectors and of incidents."""
