"""``kdnet join`` as a person runs it: the exact files that it writes, and training from them."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from small_nets import ok

TESTS = Path(__file__).parent
NETS = TESTS.parent / "nets"
CASES = TESTS / "cases" / "join"
COMMAND = "# command: kdnet "


def _command(path: Path) -> str:
    first = path.read_text().splitlines()[0]
    return first.removeprefix(COMMAND) if first.startswith(COMMAND) else ""


CASES_OF_JOIN = [path.stem for path in sorted(CASES.glob("*.prototxt")) if _command(path)]


def joined_case(name: str, folder: Path) -> str:
    """What a case's command prints and writes; ``folder`` is the working directory."""
    for path in CASES.glob(f"{name}*.prototxt"):
        shutil.copy(path, folder / path.name)
    before = {path.name for path in folder.iterdir()}
    command = shlex.split(_command(CASES / f"{name}.prototxt").format(file=f"{name}.prototxt"))
    parts = [ok(*command).out]
    for path in sorted(folder.iterdir()):
        if path.name not in before:
            parts.append(f"--- {path.name}\n{path.read_text()}")
    return "".join(parts)


@pytest.mark.parametrize("name", CASES_OF_JOIN)
def test_the_joined_files_are_these(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert joined_case(name, tmp_path) == (CASES / f"{name}.txt").read_text()


def test_every_text_has_its_join() -> None:
    assert sorted(path.stem for path in CASES.glob("*.txt")) == CASES_OF_JOIN
