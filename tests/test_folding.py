"""A fault that a file has in many places is told once, and of a long line the part around it."""

from __future__ import annotations

import pytest

from kdnet.errors import Diagnostic, Note, Span, render_all


def fault(line: int, message: str = "no such field", file: str = "a.prototxt") -> Diagnostic:
    return Diagnostic("unknown-field", message, Span(file, line, 3), help=("read the manual",))


def test_three_places_are_one_fault_with_the_lines_of_the_others() -> None:
    assert render_all([fault(7), fault(9), fault(9), fault(12)]).splitlines() == [
        "a.prototxt:7:3: error: no such field [unknown-field]",
        "note: the same in lines 9, 12",
        "help: read the manual",
    ]


def test_places_on_one_line_are_that_line() -> None:
    assert "note: the same in line 9\n" in render_all([fault(7), fault(9), fault(9)])


def test_the_lines_of_many_places_are_not_all_told() -> None:
    text = render_all([fault(line) for line in range(1, 31)])
    assert "note: the same in lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 19 more\n" in text
    assert "not shown" not in text


def test_two_places_other_words_and_other_files_are_told_apart() -> None:
    for other in (fault(8, "another"), fault(8, file="b.prototxt")):
        lines = render_all([fault(7), other, fault(9)]).splitlines()
        assert [line for line in lines if "error" in line] == [
            "a.prototxt:7:3: error: no such field [unknown-field]",
            f"{other.span}: error: {other.message} [unknown-field]",
            "a.prototxt:9:3: error: no such field [unknown-field]",
        ]


def test_other_words_in_the_file_are_told_apart() -> None:
    texts = ("a: 1", "b: 2", "c: 3")
    spans = [Span("a.prototxt", line, 1, 1, text) for line, text in enumerate(texts, 1)]
    told = render_all([Diagnostic("bad", "it is bad", span) for span in spans])
    assert told.count("it is bad") == 3


def test_what_has_no_place_or_a_note_of_its_own_is_told_apart() -> None:
    plain = [Diagnostic("gone", "it is gone") for _ in range(3)]
    assert len(render_all(plain).splitlines()) == 3
    noted = [Diagnostic("gone", "it is gone", Span("a", 1, 1), (Note("see"),)) for _ in range(3)]
    assert len(render_all(noted).splitlines()) == 6


@pytest.mark.parametrize(("column", "lead"), [(1, ""), (1000, "..."), (3000, "...")])
def test_of_a_long_line_the_part_around_the_place_is_shown(column: int, lead: str) -> None:
    line = "".join(chr(ord("a") + place % 26) for place in range(3000))
    told = render_all([Diagnostic("bad", "it is bad", Span("a", 1, column, 4, line))])
    _, shown, caret = told.splitlines()
    assert len(shown) < 260
    assert shown.startswith(f"  1 | {lead}")
    assert shown[caret.index("^")] == line[column - 1]
    assert caret.rstrip().endswith("^~~~" if column < 3000 else "^")
