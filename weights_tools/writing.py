"""Writing weight files that other weight files become: which format, and the shortest way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdnet.weights import LayerBlobs, stream_weights, write_weights
from kdnet.weights.reading import sniff_format
from kdnet.weights.registry import registered_formats
from weights_tools.copying import open_wire, renamed_net, write_pieces
from weights_tools.progress import Progress, silent

CAFFEMODEL = "caffemodel"


@dataclass(frozen=True)
class Output:
    """The file to write: ``format`` None goes by the path's ending.

    ``default`` is the format for an ending that is none's; None makes such an ending a fault.
    """

    path: str
    format: str | None = None
    progress: Progress = silent
    default: str | None = CAFFEMODEL

    @property
    def chosen(self) -> str | None:
        """The format's name; None where writing will say that there is none."""
        if self.format is not None:
            return self.format
        for found in registered_formats():
            if found.suffixes and self.path.lower().endswith(found.suffixes):
                return found.name
        return self.default


def is_binary_net(path: str) -> bool:
    """Whether a file is a binary NetParameter, which can be copied on the wire.

    Raises:
        WeightsError: as :func:`kdnet.weights.read_weights`.
    """
    return sniff_format(path).name == CAFFEMODEL


def layer_names(path: str) -> list[str]:
    """The names of a file's layers in order; a binary NetParameter's numbers are not read.

    Raises:
        WeightsError: as :func:`kdnet.weights.read_weights`.
    """
    if is_binary_net(path):
        return [layer.name for layer in open_wire(path).layers]
    return [layer.name for layer in stream_weights(path)[1].layers]


def write_selected(source: str, names: Sequence[str | None], output: Output) -> tuple[str, ...]:
    """Write a file's layers under ``names``, without those whose name is None.

    Returns:
        What a user should know: how the files were understood, and what was not kept.

    Raises:
        WeightsError: as :func:`kdnet.weights.write_weights`.
    """
    if output.chosen == CAFFEMODEL and is_binary_net(source):
        write_pieces(output.path, renamed_net(open_wire(source), names), output.progress)
        return ()
    _, stream = stream_weights(source)
    layers = (
        replace(layer, name=name)
        for layer, name in zip(stream.layers, names, strict=True)
        if name is not None
    )
    return write_layers(layers, output, [source], stream.net_name, stream.notes)


def write_layers(
    layers: Iterable[LayerBlobs],
    output: Output,
    sources: Sequence[str],
    net_name: str,
    notes: Iterable[str],
) -> tuple[str, ...]:
    """Write layers of the files ``sources`` as they come; ``notes`` are those of their streams.

    Returns:
        What a user should know: how the files were understood, and what was not kept.

    Raises:
        WeightsError: as :func:`kdnet.weights.write_weights`.
    """
    done, size_bytes = 0, sum(Path(source).stat().st_size for source in sources)

    def count(layer: LayerBlobs) -> None:
        nonlocal done
        done += sum(blob.nbytes for blob in layer.blobs)
        output.progress(done, max(done, size_bytes))

    written = write_weights(
        output.path, layers, format=output.chosen, net_name=net_name, progress=count
    )
    return (*dict.fromkeys(notes), *written.lost)
