"""Fixtures of several test files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_nets import JOINED_NET, SOLVER, STUDENT_NET, write_assets


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of :func:`write_assets`, made once a session."""
    folder = tmp_path_factory.mktemp("assets")
    write_assets(folder)
    return folder


@pytest.fixture
def workplace(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working directory in which the assets lie."""
    for asset in assets.iterdir():
        (tmp_path / asset.name).symlink_to(asset)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    return tmp_path


@pytest.fixture
def joined(workplace: Path) -> Path:
    """A workplace with a joined net, a student's net, and their solvers beside them."""
    for name, text in (("joined", JOINED_NET), ("student", STUDENT_NET)):
        (workplace / f"{name}.prototxt").write_text(text)
        (workplace / f"{name}_solver.prototxt").write_text(f'net: "{name}.prototxt"\n{SOLVER}')
    return workplace
