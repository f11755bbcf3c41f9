"""Paths written inside files, and what to say when nothing is there."""

from __future__ import annotations

import os
from pathlib import Path

from kdnet.errors import nearest


def find(path: str, beside: str | None = None) -> Path | None:
    """The file or folder that ``path`` names, or None when there is none.

    Args:
        path: The path as written, absolute or relative.
        beside: The file that names it; its folder is tried after the working directory.
    """
    for folder in _folders(beside):
        candidate = folder / path
        if path and os.path.exists(candidate):
            return candidate
    return None


def suggest(path: str, beside: str | None = None) -> tuple[str, ...]:
    """Help lines that name the existing path nearest to ``path``; empty when nothing is near."""
    for folder in _folders(beside):
        guess = _nearest_below(folder, Path(path).parts)
        if guess is not None:
            return (f'did you mean "{guess}"?',)
    return ()


def _folders(beside: str | None) -> list[Path]:
    return [Path(), *([Path(beside).parent] if beside else [])]


def _nearest_below(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """Follow ``parts`` down from ``folder``, replacing the first one that is not there."""
    known = Path()
    for index, part in enumerate(parts):
        if os.path.exists(folder / known / part):
            known /= part
            continue
        match = nearest(part, _names(folder / known))
        if match is None:
            return None
        whole = Path(known, match, *parts[index + 1 :])
        return whole if find(str(folder / whole)) else known / match
    return None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
