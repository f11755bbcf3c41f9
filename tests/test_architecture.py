"""The rules of the code base that no linter knows: sizes, names, directions, generated files."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from kdnet.schema import kdnet_pb2 as pb

REPOSITORY = Path(__file__).parents[1]
PRODUCT = ("kdnet", "weights_tools")
FILE_LINES, FUNCTION_LINES = 400, 40
OWN_FIELDS_FROM = 10_000
PROTOBUF_FIELDS = range(19_000, 20_000)
# Of "Message.field = number" for every field of Caffe's and the two of its forks.
CAFFE_DIGEST = "578c654ef034ee411b66992a9b7b17403fd1dd65821c0527a85f290bf8b92071"


def _ours(*folders: str, pattern: str = "*.py") -> list[Path]:
    found = [path for folder in folders for path in (REPOSITORY / folder).rglob(pattern)]
    return sorted(path for path in found if "_pb2" not in path.name)


def _all_python() -> list[Path]:
    return _ours(*PRODUCT, "tests", "bench")


def _tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not in a git checkout")
    paths = [REPOSITORY / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def _tracked_texts() -> Iterator[tuple[Path, str]]:
    for path in _tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path, content.decode("utf-8", errors="replace")


def _short(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def _docstring_lines(node: ast.AST) -> int:
    """Lines of the docstrings of a function and of whatever is defined inside it."""
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return sum(
        inner.body[0].end_lineno - inner.body[0].lineno + 1
        for inner in ast.walk(node)
        if isinstance(inner, documented) and ast.get_docstring(inner) is not None
    )


def _long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
            if lines > FUNCTION_LINES:
                yield f"{_short(path)}:{node.lineno}: {node.name} has {lines} lines"


def test_no_file_is_longer_than_the_budget():
    lengths = {_short(path): len(path.read_bytes().splitlines()) for path in _all_python()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_the_budget():
    assert [long for path in _all_python() for long in _long_functions(path)] == []


def test_docstrings_do_not_count_against_a_function(tmp_path):
    lines = ["def f():", '    """Say much.', *["    more"] * 60, '    """', "    return 1"]
    source = tmp_path / "long.py"
    source.write_text("\n".join(lines))
    node = ast.parse(source.read_bytes()).body[0]
    assert node.end_lineno - node.lineno + 1 - _docstring_lines(node) == 2


def test_modules_have_plain_lower_case_names_that_say_something():
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "stuff"}
    wrong = [
        _short(path)
        for path in _ours(*PRODUCT)
        if not re.fullmatch(r"__\w+__|_?[a-z][a-z0-9_]*", path.stem) or path.stem in vague
    ]
    assert wrong == []


def test_every_module_says_what_it_is_for():
    silent = [
        _short(path)
        for path in _ours(*PRODUCT)
        if not ast.get_docstring(ast.parse(path.read_bytes()))
    ]
    assert silent == []


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in _ours(*PRODUCT)}
    assert [_short(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_a_silenced_rule_is_named_and_its_reason_given():
    silenced = re.compile(r"#\s*noqa\b(?!: [A-Z]+\d+(, ?[A-Z]+\d+)*\s+\S)")
    wrong = [
        f"{_short(path)}:{number}"
        for path in _all_python()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if silenced.search(line) and path != Path(__file__)
    ]
    assert wrong == []


def test_oracles_do_not_know_what_they_judge():
    oracles = _ours("tests", pattern="oracles*.py")
    assert oracles
    importing = re.compile(r"^\s*(from|import)\s+kdnet\b", re.MULTILINE)
    assert [_short(path) for path in oracles if importing.search(path.read_text())] == []


def test_packages_import_only_to_their_left():
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed: it comes with kdnet[dev]")
    ran = subprocess.run(
        [linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_tracked_files_name_no_place_of_one_machine():
    place = re.compile(r"(?<![\w.$)}])/(work|tmp|root|home|Users|farm)/[\w.]")
    host = re.compile(r"\b(pypi\.org|pythonhosted\.org|npmjs\.(org|com)|deb\.debian\.org)\b")
    wrong = [
        f"{_short(path)}:{number}: {line.strip()}"
        for path, text in _tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if place.search(line) or host.search(line)
    ]
    assert wrong == []


def test_nothing_is_left_to_be_done_in_the_code():
    left = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    tracked = [(path, text) for path, text in _tracked_texts() if path.suffix in (".py", ".c")]
    assert [_short(path) for path, text in tracked if left.search(text)] == []


def test_no_tracked_file_is_larger_than_two_mebibytes():
    assert [_short(path) for path in _tracked() if path.stat().st_size > 2 << 20] == []


def _fields() -> Iterator[FieldDescriptor]:
    """Every field of the schema; none of its messages is nested."""
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        yield from message.fields


def _own_messages() -> set[object]:
    """The messages that no field of Caffe's leads to."""
    roots = {pb.NetParameter.DESCRIPTOR, pb.SolverParameter.DESCRIPTOR, pb.SolverState.DESCRIPTOR}
    caffe = roots | {pb.BlobProtoVector.DESCRIPTOR, pb.Datum.DESCRIPTOR}
    found: set[object] = set()
    while found != caffe:
        found = set(caffe)
        caffe |= {
            field.message_type
            for field in _fields()
            if field.containing_type in found and field.number < OWN_FIELDS_FROM
        } - {None}
    return set(pb.DESCRIPTOR.message_types_by_name.values()) - caffe


def _caffe_fields() -> list[str]:
    """Fields below our numbers, except those of messages that only our own fields have."""
    ours = _own_messages()
    return sorted(
        f"{field.full_name} = {field.number}"
        for field in _fields()
        if field.number < OWN_FIELDS_FROM and field.containing_type not in ours
    )


def test_no_field_has_a_number_that_protobuf_keeps_for_itself():
    assert [field.full_name for field in _fields() if field.number in PROTOBUF_FIELDS] == []


def test_fields_with_caffe_s_numbers_are_caffe_s():
    digest = hashlib.sha256("\n".join(_caffe_fields()).encode()).hexdigest()
    assert digest == CAFFE_DIGEST, f"fields of our own are numbered from {OWN_FIELDS_FROM} on"


def _normal(schema: descriptor_pb2.FileDescriptorProto) -> str:
    """A schema as text, without what differs from one version of protoc to the next."""
    for message in schema.message_type:
        for field in message.field:
            field.ClearField("json_name")
            if field.type == field.TYPE_FLOAT and field.default_value:
                field.default_value = str(np.float32(field.default_value))
    return str(schema)


def test_the_generated_schema_is_that_of_the_proto(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools: kdnet[dev]")
    made = tmp_path / "kdnet.binpb"
    folder = REPOSITORY / "proto"
    protoc.main(["", f"-I{folder}", f"--descriptor_set_out={made}", str(folder / "kdnet.proto")])
    [wanted] = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    found = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    assert _normal(found) == _normal(wanted), "run: make proto"


def test_the_stubs_of_the_generated_schema_name_every_field():
    stubs = (REPOSITORY / "kdnet/schema/kdnet_pb2.pyi").read_text()
    named = re.findall(r"^\s+([A-Z0-9_]+)_FIELD_NUMBER:", stubs, re.MULTILINE)
    wanted = [field.name.upper() for field in _fields()]
    assert sorted(named) == sorted(wanted), "run: make proto"
