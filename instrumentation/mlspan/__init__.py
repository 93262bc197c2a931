"""OpenTelemetry for predictive models: the application side."""

from importlib.metadata import version

__version__ = version("mlspan")
