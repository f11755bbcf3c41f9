"""One reader fed by atheris, which looks for inputs that reach new code; run.py starts this.

    python tests/fuzz/guided.py READER SEED INPUTS

Ends with 0 after so many inputs, with atheris's status at the first finding.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["kdnet", "weights_tools"]):
    from fuzz.checking import MEMORY_MB, TIME_S, try_input
    from fuzz.seeds import place_beside, seeds

# What atheris and its tables take beside the reader.
OWN_MB = 256


def main() -> None:
    """Feed the reader."""
    reader, seed, inputs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with TemporaryDirectory() as folder, TemporaryDirectory() as corpus:
        for index, content in enumerate(seeds(reader)):
            (Path(corpus) / str(index)).write_bytes(content)
        place_beside(reader, Path(folder))
        path = Path(folder) / "input"

        def test_one(data: bytes) -> None:
            path.write_bytes(data)
            try_input(reader, path, direct=len(data) % 2 == 0)

        limits = [f"-timeout={TIME_S:g}", f"-rss_limit_mb={MEMORY_MB + OWN_MB}"]
        arguments = [sys.argv[0], corpus, f"-seed={seed + 1}", f"-runs={inputs}", *limits]
        atheris.Setup(arguments, test_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
