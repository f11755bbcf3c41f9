"""The mapping utility on weight files; ``kdnet weights`` and ``python -m weights_tools``.

A file is a mapping of parameter names to arrays, read when asked for:

    >>> import weights_tools
    >>> weights = weights_tools.open("vgg16.caffemodel")
    >>> weights["conv1_1/0"].shape
    (64, 3, 3, 3)
    >>> half = {name: 0.5 * array for name, array in weights.items()}
    >>> weights_tools.save("half.caffemodel", half, like=weights)
    >>> weights_tools.rename("half.caffemodel", "student.caffemodel", {"conv1_1": "conv_st_1_1"})
    (('conv1_1', 'conv_st_1_1'),)

``conv1_1/0`` is blob 0 of layer conv1_1, its weight; ``conv1_1/1`` is its bias.
"""

from typing import TYPE_CHECKING

from kdnet.lazily import offered

if TYPE_CHECKING:
    from kdnet.net.rename import Mapping, Pair, Substitution, make_mapping
    from weights_tools.averaging import average
    from weights_tools.converting import cast, convert
    from weights_tools.difference import Difference, file_difference
    from weights_tools.merging import merge
    from weights_tools.parameters import LayerInfo, Weights, save
    from weights_tools.parameters import open_weights as open  # as in gzip and lzma
    from weights_tools.renaming import rename, rename_file, rename_layers
    from weights_tools.selecting import extract, strip_teacher
    from weights_tools.show import file_facts
    from weights_tools.writing import Output
else:
    __getattr__, __dir__ = offered(__name__)

__all__ = [
    "Difference",
    "LayerInfo",
    "Mapping",
    "Output",
    "Pair",
    "Substitution",
    "Weights",
    "average",
    "cast",
    "convert",
    "extract",
    "file_difference",
    "file_facts",
    "make_mapping",
    "merge",
    "open",
    "rename",
    "rename_file",
    "rename_layers",
    "save",
    "strip_teacher",
]
