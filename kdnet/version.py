"""The version of kdnet."""

__version__ = "0.1.0"
