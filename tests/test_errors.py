"""Faults a person can make, told by the whole program: the exact text and the exit status.

A case is ``cases/errors/NAME.prototxt`` with a first line ``# command: kdnet ...`` in which
``{file}`` is the case itself. ``NAME.txt`` holds what stderr must show beside log lines, and the
exit status. Files ``NAME_*.prototxt`` lie beside the case while it runs.
"""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import onnxruntime
import pytest
from small_nets import LOG_LINE, Ended, process, run

TESTS = Path(__file__).parent
CASES = TESTS / "cases" / "errors"
COMMAND = "# command: kdnet "
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _is_case(path: Path) -> bool:
    return path.read_text().startswith(COMMAND)


NAMES = [path.stem for path in sorted(CASES.glob("*.prototxt")) if _is_case(path)]
IN_A_PROCESS = ("unknown_bottom", "loss_becomes_infinite", "device_unknown")


def _place(name: str, folder: Path) -> list[str]:
    """Put the case's files into ``folder``; its command's arguments."""
    for path in CASES.glob(f"{name}*.prototxt"):
        (folder / path.name).write_bytes(path.read_bytes())
    first = (CASES / f"{name}.prototxt").read_text().splitlines()[0]
    return shlex.split(first.removeprefix(COMMAND).format(file=f"{name}.prototxt"))


def _expected(name: str) -> str:
    return (CASES / f"{name}.txt").read_text()


def _text(ended: Ended) -> str:
    faults = ended.faults.replace(onnxruntime.__version__, "VERSION")
    return f"{faults}exit status {ended.code}\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_fault_is_told_where_it_stands(name: str, workplace: Path) -> None:
    if name.startswith("cuda") and HAS_CUDA:
        pytest.skip("this onnxruntime has CUDA")
    before = sorted(path.name for path in workplace.iterdir())
    arguments = _place(name, workplace)
    assert _text(run(*arguments)) == _expected(name)
    left = {path.name for path in workplace.iterdir()} - set(before)
    assert {path for path in left if not path.startswith(name)} == set()


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_a_process_says_and_exits_the_same(name: str, workplace: Path) -> None:
    assert _text(process(workplace, *_place(name, workplace))) == _expected(name)


def test_every_text_has_its_case() -> None:
    assert sorted(path.stem for path in CASES.glob("*.txt")) == NAMES


def test_no_case_ends_as_a_bug_or_without_a_word() -> None:
    for name in NAMES:
        lines = _expected(name).splitlines()
        assert lines[-1] in {"exit status 1", "exit status 2", "exit status 3"}, name
        assert len(lines) > 1, name
        assert not any(LOG_LINE.match(line) for line in lines), name


KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
SINGLE_WORDS = {"interrupted", "internal", "usage", "bottom-count", "top-count"}
NOT_CODES = {
    "cifar-10-batches-bin": "a folder that a collection is published as",
    "cifar-10-binary.tar.gz": "a file that a collection is published as",
    "fashion-mnist": "a collection",
    "rows-folded": "a lowering of a convolution's gradient",
}


def _no_codes(call: ast.Call) -> list[ast.expr]:
    """Keyword arguments, and the encodings that ``encode`` and ``decode`` take."""
    coder = isinstance(call.func, ast.Attribute) and call.func.attr in ("encode", "decode")
    return [keyword.value for keyword in call.keywords] + (call.args if coder else [])


def _words(tree: ast.AST) -> set[str]:
    nodes = list(ast.walk(tree))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    skipped = {id(value) for call in calls for value in _no_codes(call)}
    strings = {n.value for n in nodes if isinstance(n, ast.Constant) and id(n) not in skipped}
    return {text for text in strings if isinstance(text, str) and KEBAB.fullmatch(text)}


def _codes() -> set[str]:
    root = TESTS.parent
    paths = [
        path for folder in ("kdnet", "weights_tools") for path in root.glob(f"{folder}/**/*.py")
    ]
    found = {word for path in paths for word in _words(ast.parse(path.read_bytes()))}
    return (found | SINGLE_WORDS) - NOT_CODES.keys()


def test_every_error_code_is_in_a_test_or_a_golden_text() -> None:
    texts = [
        path.read_text(errors="replace")
        for path in TESTS.glob("**/*")
        if path.suffix in (".py", ".txt") and path != Path(__file__)
    ]
    known = set(re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", "\n".join(texts)))
    assert sorted(_codes() - known) == []


def test_codes_are_found() -> None:
    assert {"unknown-bottom", "out-of-memory", "missing-data-source", "bad-mapping"} <= _codes()
    assert not {"utf-8", "latin-1", "kdnet-feeder"} & _codes()
