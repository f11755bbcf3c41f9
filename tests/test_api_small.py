"""The small things that pycaffe has beside its nets and solvers: drawings, a stopwatch."""

from __future__ import annotations

import time

import pytest
from api_nets import SMALL, message
from small_nets import run

import kdnet
from kdnet.errors import UsageError


def test_a_net_is_drawn_as_the_command_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(SMALL)
    assert run("draw", "net.prototxt", "by_command.dot", "--rankdir", "TB").code == 0
    kdnet.draw.draw_net_to_file(message(SMALL), "by_program.dot", "TB")
    wanted = (tmp_path / "by_command.dot").read_bytes()
    assert (tmp_path / "by_program.dot").read_bytes() == wanted
    assert kdnet.draw.draw_net("net.prototxt", "TB", "dot") == wanted


def test_phase_and_rates_are_drawn():
    text = SMALL + 'layer { name: "late" type: "ReLU" bottom: "prob" top: "late" '
    net = message(text + "include { phase: TEST } }")
    assert b"late" in kdnet.draw.draw_net(net, ext="dot")
    assert b"late" not in kdnet.draw.draw_net(net, ext="dot", phase=kdnet.TRAIN)
    plain = kdnet.draw.draw_net(net, ext="dot")
    assert kdnet.draw.draw_net(net, ext="dot", display_lrm=True) != plain


def test_what_cannot_be_drawn_is_told():
    with pytest.raises(UsageError, match="drawing-suffix"):
        kdnet.draw.draw_net_to_file(message(SMALL), "net.doc")
    with pytest.raises(ValueError, match='TB, BT, LR, RL, not "up"'):
        kdnet.draw.draw_net(message(SMALL), "up")


def test_a_stopwatch_runs_between_start_and_stop():
    timer = kdnet.Timer()
    assert timer.ms == 0
    timer.stop()
    timer.start()
    time.sleep(0.01)
    timer.start()
    first = timer.ms
    assert 10 <= first < 1e4
    time.sleep(0.001)
    assert timer.ms == first
