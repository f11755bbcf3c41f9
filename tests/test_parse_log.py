"""kdnet parse-log: Caffe's own log and kdnet's, cut, restarted, mixed, and over a year's end."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pytest
from small_nets import JOINED, ok, run

from kdnet.runtime.log_reading import FIXED

GOLDEN = Path(__file__).parent / "golden" / "caffe" / "training.log"

STAMP = "I0210 13:39:{:02d}.381027 25210 solver.cpp:204] "
LOG = f"""Log file created at: 2014/02/10 13:39:20
{STAMP.format(1)}Starting Optimization
{STAMP.format(2)}Solving LeNet
{STAMP.format(2)}Learning Rate Policy: step
{STAMP.format(3)}Iteration 0, Testing net (#0)
{STAMP.format(4)}    Test net output #0: accuracy = 0.1
{STAMP.format(4)}    Test net output #1: loss = 2.3 (* 1 = 2.3 loss)
{STAMP.format(5)}Iteration 0, loss = 2.4
{STAMP.format(5)}    Train net output #0: loss = 2.4 (* 1 = 2.4 loss)
{STAMP.format(5)}Iteration 0, lr = 0.01
{STAMP.format(8)}Iteration 10 (3.3 iter/s, 3s/10 iters), loss = 1.5
{STAMP.format(8)}    Train net output #0: loss = 1.5 (* 1 = 1.5 loss)
{STAMP.format(8)}Iteration 10, lr = 0.001
{STAMP.format(9)}Snapshotting to binary proto file x_iter_10.caffemodel
{STAMP.format(9)}Iteration 20, loss = 1e-05
{STAMP.format(9)}    Train net output #0: loss = 1e-05 (* 1 = 1e-05 loss)
{STAMP.format(9)}Iteration 20, lr = 0.001
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parsed(text: str, kind: str = "train") -> list[list[str]]:
    """The cells of a table that is made of a log, headings first."""
    Path("a.log").write_text(text)
    ok("parse-log", "a.log", ".")
    with Path(f"a.log.{kind}").open(newline="") as file:
        return list(csv.reader(file))


def test_a_log_typed_from_caffes_format() -> None:
    assert parsed(LOG) == [
        ["NumIters", "Seconds", "LearningRate", "loss"],
        ["0.0", "3.0", "0.01", "2.4"],
        ["10.0", "6.0", "0.001", "1.5"],
        ["20.0", "7.0", "0.001", "1e-05"],
    ]
    assert parsed(LOG, "test") == [
        ["NumIters", "Seconds", "LearningRate", "accuracy", "loss"],
        ["0.0", "2.0", "0.01", "0.1", "2.3"],
    ]


def test_caffes_own_log_with_a_restart_and_two_test_nets() -> None:
    ended = ok("parse-log", GOLDEN, ".", "--verbose")
    assert ended.out == ("wrote training.log.train: 4 rows\nwrote training.log.test: 3 rows\n")
    assert ended.err == f"{GOLDEN}: restarted 1 times, 4 rows ran again\n"
    with Path("training.log.train").open(newline="") as file:
        train = list(csv.reader(file))
    assert [row[0] for row in train[1:]] == ["0.0", "2.0", "4.0", "6.0"]
    assert [row[2] for row in train[1:]] == ["0.1", "0.1", "0.05", "0.05"]
    assert [row[3] for row in train[1:]] == ["1.31669", "1.30666", "0.966733", "1.07656"]
    with Path("training.log.test").open(newline="") as file:
        test = list(csv.reader(file))
    assert test[0][3:] == ["accuracy", "loss", "accuracy (#1)", "loss (#1)"]
    assert test[-1][3:] == ["0.625", "0.79514", "0.458333", "0.941283"]


def test_the_tables_are_written_as_caffes_tool_does() -> None:
    parsed(LOG)
    assert Path("a.log.train").read_bytes() == (
        b"NumIters,Seconds,LearningRate,loss\r\n"
        b"0.0,3.0,0.01,2.4\r\n10.0,6.0,0.001,1.5\r\n20.0,7.0,0.001,1e-05\r\n"
    )


@pytest.mark.parametrize("given", [";", "\t", "\\t"])
def test_another_delimiter(given: str) -> None:
    Path("a.log").write_text(LOG)
    ok("parse-log", "a.log", ".", "--delimiter", given)
    first = Path("a.log.train").read_text().splitlines()[0]
    assert first == ("\t" if "t" in given else given[-1]).join(
        ["NumIters", "Seconds", "LearningRate", "loss"]
    )


@pytest.mark.parametrize("given", ["", "::", '"', "\n"])
def test_a_delimiter_is_one_character(given: str) -> None:
    assert run("parse-log", "a.log", ".", "--delimiter", given).code == 2


def test_kdnets_own_log(joined: Path) -> None:
    ended = ok(*JOINED)
    found = parsed(ended.err)
    assert found[0][3:] == ["loss", "ts_loss"]
    assert [row[0] for row in found[1:]] == ["0.0", "2.0", "4.0"]
    assert [row[2] for row in found[1:]] == ["0.1", "0.1", "0.05"]
    assert all(float(cell) > 0 for row in found[1:] for cell in row[3:])
    test = parsed(ended.err, "test")
    assert test[0][3:6] == ["accuracy", "loss", "teacher/ip"]
    assert test[0][-1] == f"teacher/ip[{10 * 3 - 1}]"
    assert [row[0] for row in test[1:]] == ["0.0", "3.0", "6.0"]
    assert joined.exists()


# Logs that are not whole -----------------------------------------------------------------------


def test_a_last_line_without_its_end_may_be_half_a_number() -> None:
    cut = LOG.rindex("e-05 (*")
    assert parsed(LOG[:cut])[-1] == ["10.0", "6.0", "0.001", "1.5"]


def test_a_log_may_be_cut_anywhere() -> None:
    whole = parsed(LOG)
    for cut in range(LOG.index("Train net output"), len(LOG), 7):
        Path("a.log").write_text(LOG[:cut])
        if run("parse-log", "a.log", ".").code == 0:
            with Path("a.log.train").open(newline="") as file:
                rows = list(csv.reader(file))
            assert [row[3:] for row in rows] == [row[3:] for row in whole[: len(rows)]]


def test_a_log_without_its_beginning_counts_from_its_first_line() -> None:
    text = LOG[LOG.index(f"{STAMP.format(5)}Iteration 0, loss") :]
    assert parsed(text)[1][:2] == ["0.0", "0.0"]


@pytest.mark.parametrize("text", ["", "\n\n", "no log\n" * 9, LOG[: LOG.index("Iteration 0, T")]])
def test_a_log_without_outputs(text: str) -> None:
    Path("a.log").write_text(text)
    ended = run("parse-log", "a.log", ".")
    assert (ended.code, "[no-log-lines]" in ended.err) == (1, True)


def test_only_a_train_table() -> None:
    text = "".join(line for line in LOG.splitlines(True) if "Test" not in line)
    Path("a.log").write_text(text)
    ended = ok("parse-log", "a.log", ".", "--verbose")
    assert ended.out == (
        "wrote a.log.train: 3 rows\nnot writing a.log.test: the log shows no test output\n"
    )
    assert not Path("a.log.test").exists()


def test_values_that_are_not_finite() -> None:
    text = LOG.replace("loss = 1.5 (* 1 = 1.5 loss)", "loss = nan (* 1 = nan loss)")
    text = text.replace("loss = 1e-05 (*", "loss = -inf (*")
    assert [row[3] for row in parsed(text)[2:]] == ["nan", "-inf"]


def test_lines_between_and_bytes_that_are_no_text() -> None:
    noisy = LOG.replace("\n", "\nlibpng warning\n*** Aborted at 14 ***\n")
    wanted = parsed(LOG)
    Path("a.log").write_bytes(noisy.encode() + b"\xff\xfe\x00\n" + b"x" * (1 << 17) + b"\n")
    ok("parse-log", "a.log", ".")
    with Path("a.log.train").open(newline="") as file:
        assert list(csv.reader(file)) == wanted


def test_a_column_that_comes_later_is_empty_before() -> None:
    text = LOG.replace(
        f"{STAMP.format(9)}    Train net output #0: loss = 1e-05",
        f"{STAMP.format(9)}    Train net output #0: extra = 7\n"
        f"{STAMP.format(9)}    Train net output #1: loss = 1e-05",
    )
    rows = parsed(text)
    assert rows[0][3:] == ["loss", "extra"]
    assert [row[3:] for row in rows[2:]] == [["1.5", ""], ["1e-05", "7.0"]]


def test_elements_of_an_output_have_columns_of_their_own() -> None:
    again = f"{STAMP.format(4)}    Test net output #1: per_class = "
    text = LOG.replace(f"{STAMP.format(4)}    Test net output #1: loss = 2.3 (* 1 = 2.3 loss)\n",
                       f"{again}0.25\n{again}0.5\n{again}1\n")  # fmt: skip
    assert parsed(text, "test") == [
        [*FIXED, "accuracy", "per_class", "per_class[1]", "per_class[2]"],
        ["0.0", "2.0", "0.01", "0.1", "0.25", "0.5", "1.0"],
    ]


# Time ------------------------------------------------------------------------------------------


def over_new_year(year: str = "") -> str:
    text = LOG.replace("I0210 13:39:0", f"I{year}1231 23:59:5")
    new = str(int(year) + 1) if year else ""
    for second in (8, 9):
        old = f"I{year}1231 23:59:5{second}.381027"
        text = text.replace(old, f"I{new}0101 00:00:0{second - 8}.381027")
    return text


@pytest.mark.parametrize("year", ["", "2023", "2024"])
def test_a_year_ends(year: str) -> None:
    assert [row[1] for row in parsed(over_new_year(year))[1:]] == ["3.0", "8.0", "9.0"]


@pytest.mark.parametrize(("year", "leap"), [(2023, 0), (2024, 1)])
def test_february_goes_by_the_year_in_which_the_log_ends(year: int, leap: int) -> None:
    text = LOG.replace("I0210", "I0228").replace("I0228 13:39:09", "I0301 13:39:09")
    Path("a.log").write_text(text)
    at = time.mktime((year, 3, 1, 14, 0, 0, 0, 0, -1))
    os.utime("a.log", (at, at))
    ok("parse-log", "a.log", ".")
    with Path("a.log.train").open(newline="") as file:
        seconds = [float(row[1]) for row in list(csv.reader(file))[1:]]
    assert seconds[-1] == 7 + 86400 * (1 + leap)


def test_a_stamp_that_is_no_time_is_passed_over() -> None:
    text = LOG.replace("I0210 13:39:08", "I0210 25:61:08")
    assert [row[0] for row in parsed(text)[1:]] == ["0.0", "20.0"]


# Restarts --------------------------------------------------------------------------------------


def restarted(thread: str = "25211") -> str:
    """The log, then another run from iteration 10 that says other things."""
    begin = LOG[LOG.index(f"{STAMP.format(2)}Solving") : LOG.index(f"{STAMP.format(3)}Iter")]
    rest = LOG[LOG.index(f"{STAMP.format(8)}Iteration 10") :].replace("1.5", "1.25")
    return LOG + (begin + rest).replace("25210", thread).replace("13:39", "14:39")


@pytest.mark.parametrize("thread", ["25210", "25211"])
def test_a_restart_replaces_what_it_ran_again(thread: str) -> None:
    Path("a.log").write_text(restarted(thread))
    ended = ok("parse-log", "a.log", ".")
    assert ended.err == "a.log: restarted 1 times, 2 rows ran again\n"
    rows = parsed(restarted(thread))
    assert [(row[0], row[3]) for row in rows[1:]] == [
        *(("0.0", "2.4"), ("10.0", "1.25"), ("20.0", "1e-05"))
    ]
    assert rows[2][1] == "3606.0"


def test_runs_at_the_same_time_cannot_be_told_apart() -> None:
    lines = LOG.splitlines(True)
    text = "".join(line + line.replace("25210", "25299") for line in lines[1:])
    Path("a.log").write_text(text)
    ended = run("parse-log", "a.log", ".")
    assert (ended.code, "[mixed-log]" in ended.err) == (1, True)
    assert "grep ' 25299 ' a.log > 25299.log" in ended.err


# Places ----------------------------------------------------------------------------------------


def test_a_log_that_is_not_there() -> None:
    ended = run("parse-log", "no.log", ".")
    assert (ended.code, "[unreadable-log]" in ended.err) == (1, True)


def test_a_folder_that_is_not_there() -> None:
    Path("a.log").write_text(LOG)
    ended = run("parse-log", "a.log", "no/such")
    assert (ended.code, "[cannot-write]" in ended.err) == (1, True)
