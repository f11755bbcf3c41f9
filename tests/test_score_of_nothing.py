"""Scores that are not finite are told, and no metrics are made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_nets import ok, said

NET = """
layer { name: "made" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 }
          data_filler { type: "gaussian" } data_filler { } } }
layer { name: "bad" type: "Log" bottom: "data" top: "bad" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "bad" bottom: "label" top: "loss" }
layer { name: "good" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" top: "good" }
"""


@pytest.mark.filterwarnings("error")
def test_logarithms_of_negative_numbers_get_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    ended = ok("test", "net.prototxt", "--iterations", 2, "--device", "cpu")
    assert said(ended, r'warning: "bad" is not finite in [1-8] of 8 rows: it gets no score')
    assert '"bad", 8 items' not in ended.out
    assert '"data", 8 items' in ended.out
    assert "loss = nan" in ended.out
