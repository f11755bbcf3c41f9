"""One row or more for every gradient rule."""

from __future__ import annotations

from tables import op_rules_basic, op_rules_models, op_rules_vision

FAMILIES = (op_rules_basic, op_rules_models, op_rules_vision)
CASES = sorted((case for family in FAMILIES for case in family.CASES), key=lambda case: case.id)
REFUSED = [*op_rules_models.REFUSED, *op_rules_vision.REFUSED]
