"""What a command imports before it works, and names that packages offer before they have them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tables.formats import CASES

from kdnet.commands import CommandParser, command_modules
from kdnet.lazily import LazyModule

HEAVY = {"numpy", "google.protobuf", "onnx", "onnxruntime", "h5py", "lmdb", "PIL", "rich"}
OFFERING = ("kdnet.net", "kdnet.weights", "weights_tools")
RUN = """
import contextlib, runpy, sys
sys.argv[:1] = []
with contextlib.suppress(SystemExit):
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
print(*sys.modules, file=sys.stderr)
"""


def imported(*words: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    command = [sys.executable, "-c", RUN, *words]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


def rename(case: str, folder: Path) -> list[str]:
    [build] = [row.build for row in CASES if row.id == case]
    build(folder / "in")
    template = ["--template", "teacher/{name}"]
    return ["rename", str(folder / "in"), "-o", str(folder / "out.caffemodel"), *template]


@pytest.mark.parametrize("program", [("weights_tools",), ("kdnet", "weights")])
@pytest.mark.parametrize("case", ["caffemodel/v0", "caffemodel/v1", "caffemodel/v2"])
def test_renaming_a_binary_net_needs_no_numbers_and_no_schema(
    program: tuple[str, ...], case: str, tmp_path: Path
) -> None:
    found = imported(*program, *rename(case, tmp_path))
    assert (tmp_path / "out.caffemodel").exists()
    assert "kdnet.weights.formats.torch" in found
    assert HEAVY & found == set()


def test_other_files_are_renamed_with_numpy(tmp_path: Path) -> None:
    assert "numpy" in imported("weights_tools", *rename("npz", tmp_path))


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("nothing",), ()])
def test_help_needs_none_of_what_commands_need(words: tuple[str, ...]) -> None:
    found = imported("kdnet", *words)
    assert "kdnet.cli" in found
    assert HEAVY & found == set()


@pytest.mark.parametrize(
    ("words", "package", "names"),
    [
        (("kdnet", "join", "--help"), "kdnet.cli", {"join"}),
        (("kdnet", "weights", "show", "--help"), "kdnet.cli", {"weights"}),
        (("kdnet", "weights", "show", "--help"), "weights_tools.commands", {"show"}),
        (("weights_tools", "strip-teacher", "-h"), "weights_tools.commands", {"strip_teacher"}),
        (("kdnet", "--help"), "weights_tools.commands", set()),
    ],
)
def test_only_the_command_that_is_asked_for_is_imported(
    words: tuple[str, ...], package: str, names: set[str]
) -> None:
    found = imported(*words)
    commands = {module for module in command_modules(package).values() if module in found}
    assert commands == {f"{package}.{name}" for name in names}


@pytest.mark.parametrize("package", ["kdnet.cli", "weights_tools.commands"])
def test_a_command_is_called_like_its_module(package: str) -> None:
    found = command_modules(package)
    assert list(found) == sorted(found)
    for name, module in found.items():
        assert getattr(importlib.import_module(module), "NAME", name) == name


COMMAND = """
HELP = "say {what}"
def add_arguments(parser):
    parser.add_argument("--loud", action="store_true")
def run(options):
    return "{what}", options.loud
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two commands and a module that is none."""
    name = f"shouting_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    for module, what in (("__init__", ""), ("good_bye", "bye"), ("hello", "hello"), ("_no", "")):
        (folder / f"{module}.py").write_text(COMMAND.format(what=what))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_commands_come_from_modules(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = CommandParser(prog="shout")
    parser.take_commands(package, "act")
    options = parser.parse_args(["good-bye", "--loud"])
    assert options.act(options) == ("bye", True)
    assert f"{package}.hello" not in sys.modules
    options = parser.parse_args(["hello"])
    assert options.act(options) == ("hello", False)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "good-bye say bye hello say hello" in shown


@pytest.mark.parametrize("words", [[], ["hell"], ["_no"], ["--loud", "hello"]])
def test_words_that_begin_with_no_command_are_faults_that_name_all(
    words: list[str], package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = CommandParser(prog="shout")
    parser.take_commands(package, "act")
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert "usage: shout [-h] COMMAND ..." in capsys.readouterr().err
    assert f"{package}.good_bye" in sys.modules
    assert f"{package}._no" not in sys.modules


@pytest.mark.parametrize("name", OFFERING)
def test_every_name_that_a_package_offers_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for one in package.__all__:
        assert getattr(package, one) is vars(package)[one]


@pytest.mark.parametrize("name", OFFERING)
def test_a_name_that_a_package_does_not_offer_is_a_fault(name: str) -> None:
    package = importlib.import_module(name)
    with pytest.raises(AttributeError, match=rf"module '{name}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018  # asking is what is tested


def test_a_package_imports_the_module_of_the_name_that_is_asked_for() -> None:
    code = "import sys; from kdnet.weights import atomic_write; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert "kdnet.weights.files" in found
    assert "kdnet.weights.fillers" not in found
    assert HEAVY & found == set()


LAZY = """
from typing import TYPE_CHECKING
from kdnet.lazily import offered
if TYPE_CHECKING:
    from {name} import inner
    from {name}.other import one as two
else:
    __getattr__, __dir__ = offered(__name__)
"""


def test_a_package_offers_modules_and_names_under_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"offering_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(LAZY.format(name=name))
    (tmp_path / name / "inner.py").write_text("value = 3")
    (tmp_path / name / "other.py").write_text("one = 1")
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module(name)
    assert {"inner", "two"} <= set(dir(package))
    assert f"{name}.inner" not in sys.modules
    assert (package.inner.value, package.two) == (3, 1)
    with pytest.raises(AttributeError, match="has no attribute 'one'"):
        package.one  # noqa: B018  # asking is what is tested


def test_a_lazy_module_has_what_the_module_has() -> None:
    lazy = LazyModule("colorsys")
    sys.modules.pop("colorsys", None)
    assert "colorsys" not in sys.modules
    assert lazy.rgb_to_hsv is importlib.import_module("colorsys").rgb_to_hsv
    with pytest.raises(AttributeError, match="nothing"):
        lazy.nothing  # noqa: B018  # asking is what is tested
