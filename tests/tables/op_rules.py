"""One row or more for every gradient rule."""

from __future__ import annotations

from tables import op_rules_basic, op_rules_vision

CASES = sorted([*op_rules_basic.CASES, *op_rules_vision.CASES], key=lambda case: case.id)
