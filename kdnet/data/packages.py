"""Packages that only some data need, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from kdnet.errors import DataError, fail


def package(name: str, distribution: str | None = None) -> Any:
    """The package ``name``.

    Args:
        name: What is imported.
        distribution: What is installed, where it has another name.

    Raises:
        DataError: missing-package.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        text = f'these data need the package "{name}": {error}'
        hint = (f"pip install {distribution or name}",)
        fail(DataError, "missing-package", text, help=hint)
