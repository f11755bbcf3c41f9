"""Every data source: its batches, its shapes, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image
from tables.database_faults import DATABASE_FAULTS, FaultCase
from tables.file_faults import FILE_FAULTS
from tables.hdf5_faults import HDF5_FAULTS
from tables.sources import (
    BOTH,
    COUNT,
    DUMMY,
    HDF5,
    IMAGES,
    LABELS,
    LMDB,
    NUMBERS,
    PIXELS,
    SOURCES,
    SourceCase,
    database,
    datum,
    in_order,
    layer_of,
    write_hdf5,
    write_images,
    write_lmdb,
)
from tables.window_faults import WINDOW_FAULTS

from kdnet.data import cache, open_source, source_types, static_shapes
from kdnet.errors import DataError, WeightsError
from kdnet.schema import kdnet_pb2 as pb

FAULTS = DATABASE_FAULTS + FILE_FAULTS + HDF5_FAULTS + WINDOW_FAULTS

each_source = pytest.mark.parametrize("case", SOURCES, ids=lambda case: case.id)


def batches(case: SourceCase, folder: Path, *indices: int) -> list[tuple[np.ndarray, ...]]:
    with open_source(layer_of(case.prototxt, folder, case.phase), seed=5) as source:
        return [source.batch(index) for index in indices]


def assert_same(left: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


@each_source
def test_batches_are_as_expected(case: SourceCase, tmp_path: Path):
    case.build(tmp_path)
    for index, batch in enumerate(batches(case, tmp_path, 0, 1, 2, 3)):
        assert tuple(values.shape for values in batch) == case.shapes
        assert all(values.dtype == np.float32 for values in batch)
        assert all(values.flags.c_contiguous and values.flags.writeable for values in batch)
        if case.expect:
            assert_same(batch, case.expect(index))


@each_source
def test_a_batch_depends_on_its_number_alone(case: SourceCase, tmp_path: Path):
    case.build(tmp_path)
    fresh = batches(case, tmp_path, 7)[0]
    for before in ((3,), (9, 8), (0, 1, 2, 3, 4, 5, 6)):
        assert_same(batches(case, tmp_path, *before, 7)[-1], fresh)


@each_source
def test_batches_do_not_depend_on_being_kept_in_memory(case, tmp_path, monkeypatch):
    case.build(tmp_path)
    kept = batches(case, tmp_path, 0, 5, 2, 2)
    monkeypatch.setattr(cache, "LIMIT_BYTES", 0)
    for one, other in zip(kept, batches(case, tmp_path, 0, 5, 2, 2), strict=True):
        assert_same(one, other)


@each_source
def test_a_batch_may_be_changed_without_changing_the_next(case: SourceCase, tmp_path: Path):
    case.build(tmp_path)
    with open_source(layer_of(case.prototxt, tmp_path, case.phase), seed=5) as source:
        first = source.batch(0)
        wanted = tuple(values.copy() for values in first)
        for values in first:
            values.fill(-1)
        assert_same(source.batch(0), wanted)


@each_source
def test_static_shapes_are_the_source_s_own(case: SourceCase, tmp_path: Path):
    case.build(tmp_path)
    layer = layer_of(case.prototxt, tmp_path, case.phase)
    with open_source(layer, seed=5) as source:
        assert source.tops == layer.tops
        assert source.shapes == static_shapes(layer) == case.shapes


@pytest.mark.parametrize(
    "id", ["data-stated", "dummy-legacy", "hdf5-stated", "images-resized", "memory"]
)
def test_stated_shapes_need_no_data(id: str, tmp_path: Path):
    case = next(case for case in SOURCES if case.id == id)
    assert static_shapes(layer_of(case.prototxt, tmp_path)) == case.shapes


def test_a_shape_from_the_command_line_needs_no_data_and_is_before_the_crop(tmp_path: Path):
    layer = layer_of(LMDB + "transform_param { crop_size: 2 }", tmp_path)
    assert static_shapes(layer, shape=(3, 6, 5)) == ((4, 3, 2, 2), (4,))
    assert static_shapes(layer_of(IMAGES, tmp_path), shape=(3, 6, 5)) == BOTH
    one = HDF5.replace('top: "label" ', "")
    assert static_shapes(layer_of(one, tmp_path), shape=(2, 7)) == ((4, 2, 7),)
    given = layer_of('name: "in" type: "Input" top: "x"', tmp_path)
    assert static_shapes(given, shape=(2, 7)) == ((2, 7),)


def test_a_stated_shape_wins_over_the_command_line(tmp_path: Path):
    case = next(case for case in SOURCES if case.id == "data-stated")
    assert static_shapes(layer_of(case.prototxt, tmp_path), shape=(1, 2, 3)) == case.shapes


def test_input_has_shapes_and_no_data(tmp_path: Path):
    text = 'name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } }'
    assert static_shapes(layer_of(text, tmp_path)) == ((2, 3), (2, 3))
    assert open_source(layer_of(text, tmp_path), seed=0).shapes == ((2, 3), (2, 3))


def test_every_source_has_a_row():
    # Input has no data; RecordNumber and SoftLabels have none without another layer:
    # test_record_number.py, test_soft_labels.py.
    others = {"Input", "RecordNumber", "SoftLabels"}
    assert {case.type for case in SOURCES} | others == set(source_types())


def test_rows_are_sorted_and_their_names_differ():
    for rows in (SOURCES, DATABASE_FAULTS, FILE_FAULTS, HDF5_FAULTS, WINDOW_FAULTS):
        names = [row.id for row in rows]
        assert names == sorted(set(names))


def provoke(case: FaultCase, folder: Path) -> None:
    with open_source(layer_of(case.prototxt, folder), seed=0) as source:
        assert case.later
        source.batch(0)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.id)
def test_a_fault_says_what_and_where(case: FaultCase, tmp_path: Path):
    case.build(tmp_path)
    with warnings.catch_warnings():
        # Pillow warns of a large image, which kdnet then refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(DataError) as caught:
            provoke(case, tmp_path)
    (found,) = caught.value.diagnostics
    assert found.code == case.code
    assert found.message.startswith(case.message.replace("@", str(tmp_path)))
    assert found.span is not None
    line = Path(found.span.file)
    text = case.prototxt.replace("@", str(tmp_path))
    text = text if line.name == "net.prototxt" else line.read_text()
    written = text.splitlines()[found.span.line - 1][found.span.column - 1 :]
    assert written.startswith(case.at.replace("@", str(tmp_path)))
    assert found.help == ((case.help.replace("@", str(tmp_path)),) if case.help else found.help)


def test_a_fault_in_a_list_names_the_layer_that_reads_it(tmp_path: Path):
    write_images(tmp_path)
    (tmp_path / "list.txt").write_text("an image0.png 1\nnone.png 2\n")
    with (
        open_source(layer_of(IMAGES, tmp_path), seed=0) as source,
        pytest.raises(DataError) as caught,
    ):
        source.batch(0)
    (note,) = caught.value.diagnostics[0].notes
    assert note.message == 'layer "i" reads it'
    assert note.span is not None
    assert note.span.file == str(tmp_path / "net.prototxt")


def test_all_bad_lines_of_a_list_are_told_at_once(tmp_path: Path):
    (tmp_path / "list.txt").write_text("a.png\nb.png 1\nc.png x\n")
    with pytest.raises(DataError) as caught:
        open_source(layer_of(IMAGES, tmp_path), seed=0)
    assert [found.span.line for found in caught.value.diagnostics] == [1, 3]


def test_faults_leave_no_database_open(tmp_path: Path):
    database()(tmp_path)
    for _ in range(3):
        with pytest.raises(DataError):
            open_source(layer_of(LMDB + "transform_param { crop_size: 9 }", tmp_path), seed=0)
    with lmdb.open(str(tmp_path / "db"), readonly=True) as environment:
        assert environment.stat()["entries"] == COUNT


@pytest.mark.parametrize("code", ["bad-filler", "unknown-filler"])
def test_a_bad_filler_is_told_where_it_stands(code: str, tmp_path: Path):
    kind = "uniform" if code == "bad-filler" else "gausian"
    filler = f'data_filler {{ type: "{kind}" min: 2 max: 1 }}'
    text = DUMMY + "dummy_data_param { shape { dim: 1 } data_filler { } " + filler + " }"
    with pytest.raises(WeightsError) as caught:
        open_source(layer_of(text, tmp_path), seed=0)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert text[found.span.column - 1 :] == text[text.index(filler) :]


def test_paths_are_looked_for_here_and_then_beside_the_prototxt(tmp_path, monkeypatch):
    nets, here = tmp_path / "nets", tmp_path / "here"
    for folder, rows in ((nets, [0]), (here, [1])):
        folder.mkdir()
        write_lmdb(folder / "db", [datum(row).SerializeToString() for row in rows])
    layer = layer_of(LMDB.replace("@/db", "db"), nets)
    for place, row in ((tmp_path, 0), (here, 1)):
        monkeypatch.chdir(place)
        with open_source(layer, seed=0) as source:
            np.testing.assert_array_equal(source.batch(0)[0][0], PIXELS[row])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        open_source(layer_of(LMDB.replace("@/db", "sub/db"), nets), seed=0)
    assert f'"sub/db" does not exist (nor in "{nets}")' in str(caught.value)


def test_the_nearest_path_is_found_below_a_mistyped_folder(tmp_path: Path):
    (tmp_path / "examples" / "mnist").mkdir(parents=True)
    database()(tmp_path / "examples" / "mnist")
    with pytest.raises(DataError) as caught:
        open_source(layer_of(LMDB.replace("/db", "/exampels/mnist/db"), tmp_path), seed=0)
    wanted = tmp_path / "examples" / "mnist" / "db"
    assert caught.value.diagnostics[0].help == (f'did you mean "{wanted}"?',)


def test_a_path_no_system_takes_is_missing_like_any_other(tmp_path: Path):
    for name in ("x" * 5000, "a\\000b"):
        with pytest.raises(DataError) as caught:
            open_source(layer_of(LMDB.replace("/db", "/" + name), tmp_path), seed=0)
        assert caught.value.diagnostics[0].code == "missing-data-source"


@pytest.mark.parametrize("backend", ["", "backend: LEVELDB"])
def test_an_lmdb_is_read_whatever_the_backend_and_the_mismatch_noted(backend, tmp_path):
    database()(tmp_path)
    text = LMDB.replace("backend: LMDB", backend)
    with open_source(layer_of(text, tmp_path), seed=0) as source:
        assert_same(source.batch(1), in_order(PIXELS, 4)(1))
        (note,) = source.notes
    assert (note.code, note.severity) == ("backend-mismatch", "warning")
    assert text.replace("@", str(tmp_path))[note.span.column - 1 :].startswith(
        "LEVELDB" if backend else f'"{tmp_path}/db"'
    )
    with open_source(layer_of(LMDB, tmp_path), seed=0) as source:
        assert source.notes == ()


def test_one_database_serves_several_layers_of_a_process(tmp_path: Path):
    database()(tmp_path)
    layer = layer_of(LMDB, tmp_path)
    first, second = open_source(layer, seed=0), open_source(layer, seed=0)
    first.batch(3)
    assert_same(second.batch(0), in_order(PIXELS, 4)(0))
    first.close()
    assert_same(second.batch(1), in_order(PIXELS, 4)(1))
    second.close()


READER = """
import lmdb, sys
with lmdb.open(sys.argv[1], readonly=True) as environment, environment.begin() as transaction:
    print(transaction.stat()["entries"], flush=True)
    sys.stdin.readline()
"""


def test_a_database_is_read_while_another_process_reads_it(tmp_path: Path):
    database()(tmp_path)
    command = [sys.executable, "-c", READER, tmp_path / "db"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline().strip() == b"10"
        with open_source(layer_of(LMDB, tmp_path), seed=0) as source:
            assert_same(source.batch(2), in_order(PIXELS, 4)(2))
        reader.communicate(b"\n")
    assert reader.returncode == 0


def test_reading_a_database_changes_nothing_in_its_folder(tmp_path: Path):
    database()(tmp_path)
    (tmp_path / "db" / "lock.mdb").unlink()
    before = (tmp_path / "db" / "data.mdb").read_bytes()
    with open_source(layer_of(LMDB, tmp_path), seed=0) as source:
        source.batch(0)
    assert os.listdir(tmp_path / "db") == ["data.mdb"]
    assert (tmp_path / "db" / "data.mdb").read_bytes() == before


def test_rand_skip_starts_every_run_of_a_seed_at_one_record_below_it(tmp_path: Path):
    database()(tmp_path)
    starts = set()
    for seed in range(30):
        layer = layer_of(LMDB.replace("4 backend", "4 rand_skip: 3 backend"), tmp_path)
        with open_source(layer, seed=seed) as source:
            labels = source.batch(0)[1]
        (start,) = (row for row in range(3) if (LABELS[row : row + 4] == labels).all())
        starts.add(start)
    assert starts == {0, 1, 2}


@pytest.mark.parametrize("text", [IMAGES, HDF5, LMDB], ids=["images", "hdf5", "lmdb"])
def test_a_shuffled_pass_has_every_row_once_and_differs_from_the_next(text, tmp_path):
    write_images(tmp_path)
    database()(tmp_path)
    if text == HDF5:
        write_hdf5(tmp_path)
    layer = layer_of(text.replace("batch_size: 4", "batch_size: 5 shuffle: true"), tmp_path)
    with open_source(layer, seed=3) as source:
        passes = [
            np.concatenate([source.batch(2 * k)[1], source.batch(2 * k + 1)[1]]) for k in (0, 1)
        ]
    with open_source(layer, seed=4) as source:
        other = np.concatenate([source.batch(0)[1], source.batch(1)[1]])
    for labels in (*passes, other):
        assert sorted(labels) == sorted(LABELS)
    assert (passes[0] != passes[1]).any()
    assert (passes[0] != other).any()


def test_hdf5_shuffles_inside_files_only(tmp_path: Path):
    write_hdf5(tmp_path)
    layer = layer_of(HDF5.replace("4 }", "10 shuffle: true }"), tmp_path)
    firsts = set()
    with open_source(layer, seed=0) as source:
        for index in range(20):
            images, labels = source.batch(index)
            rows = [
                next(k for k in range(COUNT) if (NUMBERS[k] == image).all()) for image in images
            ]
            np.testing.assert_array_equal(LABELS[rows], labels)
            in_first_file = [row < 4 for row in rows]
            assert in_first_file in ([True] * 4 + [False] * 6, [False] * 6 + [True] * 4)
            firsts.add(in_first_file[0])
    assert firsts == {True, False}


def test_random_fillers_differ_by_batch_top_and_seed(tmp_path: Path):
    case = next(case for case in SOURCES if case.id == "dummy-random")
    drawn = [*batches(case, tmp_path, 0)[0], *batches(case, tmp_path, 1)[0]]
    with open_source(layer_of(case.prototxt, tmp_path), seed=6) as source:
        drawn += source.batch(0)
    assert len({values.tobytes() for values in drawn}) == len(drawn)


def test_encoded_records_are_forced_to_colour_or_grey(tmp_path: Path):
    def grey(row: int) -> pb.Datum:
        file = tmp_path / f"{row}.png"
        Image.fromarray(PIXELS[row, 0]).save(file)
        return pb.Datum(data=file.read_bytes(), label=row, encoded=True)

    database(grey)(tmp_path)
    wanted = PIXELS[:4, :1]
    forces = (("", 1), ("force_color: true", 3), ("force_gray: true", 1))
    for force, channels in forces:
        text = LMDB + "transform_param { " + force + " }"
        with open_source(layer_of(text, tmp_path), seed=0) as source:
            images = source.batch(0)[0]
        np.testing.assert_array_equal(images, np.repeat(wanted, channels, axis=1))


@pytest.mark.parametrize("text", [LMDB, HDF5, IMAGES], ids=["lmdb", "h5py", "PIL.Image"])
def test_a_package_that_is_not_installed_is_named(text, tmp_path, monkeypatch, request):
    name = request.node.callspec.id
    database()(tmp_path)
    write_images(tmp_path)
    if name == "h5py":
        write_hdf5(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError) as caught:
        open_source(layer_of(text, tmp_path), seed=0)
    (found,) = caught.value.diagnostics
    assert found.code == "missing-package"
    assert f'these data need the package "{name}"' in found.message
    assert found.help == (f"pip install {'Pillow' if name == 'PIL.Image' else name}",)


def test_nothing_is_imported_that_the_data_do_not_need():
    code = "import sys, kdnet.data as data; data.source_types(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"lmdb", "h5py", "PIL", "rich"} & set(ran.stdout.split())
