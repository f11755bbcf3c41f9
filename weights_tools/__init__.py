"""The mapping utility on weight files; ``kdnet weights`` and ``python -m weights_tools``."""

from kdnet.net.rename import Mapping, Pair, Substitution, make_mapping
from weights_tools.rename import rename_file, rename_layers
from weights_tools.show import file_facts

__all__ = [
    "Mapping",
    "Pair",
    "Substitution",
    "file_facts",
    "make_mapping",
    "rename_file",
    "rename_layers",
]
