"""Phases, levels and stages: which layers a net has (Caffe's NetStateRule)."""

from __future__ import annotations

from dataclasses import dataclass

from kdnet.errors import Diagnostic, Faults
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb


@dataclass(frozen=True)
class NetState:
    """The phase, level and stages for which a net is built."""

    phase: int = pb.TEST
    level: int = 0
    stages: tuple[str, ...] = ()

    def merged(self, message: pb.NetState) -> NetState:
        """Overlaid with the fields that ``message`` sets, as the solver's test_state does."""
        return NetState(
            message.phase if message.HasField("phase") else self.phase,
            message.level if message.HasField("level") else self.level,
            self.stages + tuple(message.stage),
        )

    def meets(self, rule: pb.NetStateRule) -> bool:
        """Whether every condition of the rule holds."""
        return (
            (not rule.HasField("phase") or rule.phase == self.phase)
            and (not rule.HasField("min_level") or self.level >= rule.min_level)
            and (not rule.HasField("max_level") or self.level <= rule.max_level)
            and all(stage in self.stages for stage in rule.stage)
            and not any(stage in self.stages for stage in rule.not_stage)
        )


def is_included(
    layer: pb.LayerParameter, state: NetState, source: SourceMap, faults: Faults
) -> bool:
    """Whether the layer is part of the net: any include rule, or no exclude rule, that holds."""
    if layer.include and layer.exclude:
        faults.add(
            Diagnostic(
                "include-and-exclude",
                f'layer "{layer.name}" has both include and exclude rules',
                source.span(("exclude", 0)),
                help=("keep one of the two: Caffe accepts no mixture",),
            )
        )
    if layer.include:
        return any(state.meets(rule) for rule in layer.include)
    return not any(state.meets(rule) for rule in layer.exclude)
