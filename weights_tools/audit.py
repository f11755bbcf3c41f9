"""What loading weight files into a net would do, without the net's data and without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdnet.errors import Diagnostic
from kdnet.weights import Audit, LayerBlobs, stream_weights
from kdnet.weights.audit import HeldFile, HeldLayer, audit_layers, non_finite
from weights_tools.matching import near_misses
from weights_tools.nets import NetChoice, net_targets
from weights_tools.parameters import LayerInfo, layer_info


@dataclass(frozen=True)
class NearMiss:
    """A layer that no file fills, and a layer of a file that it may have meant."""

    layer: str
    file: str
    found: LayerInfo
    fits: bool

    def text(self) -> str:
        """One line."""
        shapes = ", ".join(map(str, self.found.shapes))
        how = "of the same shapes" if self.fits else f"of other shapes, {shapes}"
        return f'{self.layer}: "{self.file}" has "{self.found.name}" {how}'


@dataclass(frozen=True)
class FileAudit:
    """The account that training would give, and what each unfilled layer may have meant."""

    audit: Audit
    near: tuple[NearMiss, ...]

    @property
    def faults(self) -> tuple[Diagnostic, ...]:
        """What training would stop at."""
        return self.audit.faults

    def text(self) -> str:
        """The account, then near misses."""
        lines = [self.audit.text()]
        if self.near:
            lines.append("near misses:")
            lines += [f"  {found.text()}" for found in self.near]
        return "\n".join(lines)


@dataclass(frozen=True)
class Survey:
    """A file that was read a layer at a time, of whose numbers none is kept."""

    held: HeldFile
    layers: tuple[LayerInfo, ...]

    @classmethod
    def of(cls, path: str) -> Survey:
        """Read a file of any format.

        Raises:
            WeightsError: as :func:`kdnet.weights.read_weights`.
        """
        _, stream = stream_weights(path)
        found = [(layer_info(layer), _held(layer)) for layer in stream.layers]
        held = HeldFile(path, tuple(one for _, one in found), stream.doubts)
        return cls(held, tuple(info for info, _ in found))

    def spare(self, wanted: set[str]) -> list[LayerInfo]:
        """The layers that the net does not name."""
        return [layer for layer in self.layers if layer.shapes and layer.name not in wanted]


def _held(layer: LayerBlobs) -> HeldLayer:
    counts = [non_finite(blob) for blob in layer.blobs]
    return HeldLayer(layer.name, layer.shapes, lambda _: counts)


def audit_files(
    paths: Sequence[str], choice: NetChoice, *, allow_unloaded: bool = False
) -> FileAudit:
    """Say what each layer of a net would be loaded from.

    Raises:
        KdnetError: the faults of reading the net and the files; those of loading are in
            :attr:`FileAudit.faults`.
    """
    targets = net_targets(choice)
    files = [Survey.of(path) for path in paths]
    audit = audit_layers(targets, [file.held for file in files], allow_unloaded=allow_unloaded)
    wanted = {target.layer for target in targets}
    empty = {row.layer for row in audit.rows if row.status == "filler"}
    unfilled = [target for target in targets if target.layer in empty]
    near = [
        NearMiss(target.layer, file.held.path, layer, fitting)
        for file in files
        for target, layer, fitting in near_misses(unfilled, file.spare(wanted))
    ]
    return FileAudit(audit, tuple(near))
