"""Sources that go with the records of another data layer, whatever their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kdnet.data.cache import Rows
from kdnet.data.located import refuse
from kdnet.data.source import Source
from kdnet.errors import did_you_mean

CODE = "no-followed-layer"


class FollowingSource(Source):
    """Shows something for each record of the layer that its parameter ``of`` names.

    ``params_field`` is the parameter message, which has ``of`` and ``batch_size`` too.
    """

    follows = True
    params_field: ClassVar[str]
    _followed: Source | None = None

    @property
    def params(self) -> Any:
        """The layer's parameter message."""
        return getattr(self.layer.message, self.params_field)

    def attach(self, siblings: Mapping[str, Source]) -> None:
        """Find the data layer that is followed.

        Raises:
            DataError: no-followed-layer, item-shape, and what :meth:`accept` finds.
        """
        known = {name: s for name, s in siblings.items() if not s.follows}
        name = self.params.of
        name = name if name or len(known) != 1 else next(iter(known))
        at = (self.params_field, "of")
        if name not in known:
            what = f'there is no data layer "{name}"' if name else "of is not given"
            hint = did_you_mean(name, known) or (f"data layers are {', '.join(known) or 'none'}",)
            refuse(self.layer, CODE, what, *at, help=hint)
        found = known[name]
        if found.record_count is None:
            text = f'layer "{name}" shows no records that could be followed: {found.varies}'
            refuse(self.layer, CODE, text, *at)
        size, stated = len(found.records(0)), self.params.batch_size
        if stated not in (0, size):
            text = f'batch_size is {stated}, but layer "{name}" has batches of {size}'
            refuse(self.layer, "item-shape", text, self.params_field, "batch_size")
        self.accept(name, found.record_count, size)
        self._followed = found

    def accept(self, name: str, count: int, batch_size: int) -> None:
        """Raise a DataError unless ``count`` records of the layer ``name`` can be followed."""
        del name, count, batch_size

    @property
    def followed(self) -> Source:
        """The data layer whose records are shown.

        Raises:
            DataError: no-followed-layer: nothing is attached.
        """
        if self._followed is None:
            text = "it follows the records of a data layer, and there is none here"
            refuse(self.layer, CODE, text, self.params_field, "of")
        return self._followed

    @property
    def record_count(self) -> int | None:
        """As many as are followed."""
        return self.followed.record_count

    @property
    def varies(self) -> str:
        """What belongs to a record stays."""
        return ""

    def records(self, index: int) -> Rows:
        """The records of batch ``index`` of the layer that is followed."""
        return self.followed.records(index)
