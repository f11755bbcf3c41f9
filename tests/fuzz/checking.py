"""One input given to one reader, and what may come of it: layers, or a fault of kdnet's own."""

from __future__ import annotations

from pathlib import Path

import weights_tools
from fuzz.seeds import RENAME
from kdnet.errors import KdnetError
from kdnet.weights import read_weights
from kdnet.weights.registry import registered_formats

TIME_S = 5.0
MEMORY_MB = 256


def try_input(reader: str, path: Path, *, direct: bool) -> bool:
    """Read a file; whether it was read.

    ``direct`` gives it to the reader without a look at the first bytes. Whatever is raised that
    is no KdnetError is a finding.
    """
    try:
        if reader == RENAME:
            rules = weights_tools.make_mapping((), (), "teacher/{name}")
            weights_tools.rename(path, path.with_suffix(".out"), rules)
        elif direct:
            found = next(one for one in registered_formats() if one.name == reader)
            for _ in found.read(str(path)).layers:
                pass
        else:
            read_weights(path)
    except KdnetError:
        return False
    return True
