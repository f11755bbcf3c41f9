"""Builds CUDA libraries that do nothing, so that CUDA sessions can be made without a GPU.

With them on the loader's path the stock onnxruntime-gpu wheel believes in a device: it places
nodes, creates kernels and inserts copies as it would on a real one. What it computes is garbage.

    python build.py SITE_PACKAGES FOLDER

SITE_PACKAGES holds onnxruntime-gpu and the headers of nvidia-cuda-runtime and nvidia-cuda-crt.
What to build is read from the wheel itself: every function that its CUDA provider imports exists,
does nothing and returns 0 (success), unless a C file beside this one says more. Needs gcc and nm.
"""

from __future__ import annotations

import mmap
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
DRIVER, CUDNN = "libcuda.so.1", "libcudnn.so.9"


def imported_functions(provider: Path) -> dict[str, set[str]]:
    """The functions that the provider needs, by the library that it expects them in."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", "--with-symbol-versions", provider],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, set[str]] = {DRIVER: set(), CUDNN: named_in(provider, rb"cudnn[A-Z]\w+")}
    for symbol in (line.split()[-1] for line in listing.splitlines()):
        name, _, library = symbol.partition("@")
        if library.startswith("libcu"):
            found.setdefault(library, set()).add(name)
        elif re.match(r"cu[A-Z]", name):
            found[DRIVER].add(name)
    # Needed for loading, though nothing is imported from it.
    return found | {"libcurand.so.10": set()}


def named_in(library: Path, pattern: bytes) -> set[str]:
    """Names that stand in a library as strings: it looks these functions up when it runs."""
    with (
        library.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return {name.decode() for name in re.findall(rb"\0(" + pattern + rb")(?=\0)", content)}


def build(soname: str, functions: set[str], includes: Path, out: Path) -> None:
    """Compile one library: the C file of its name if there is one, and the rest as no-ops."""
    stem = soname.removeprefix("lib").partition(".")[0]
    written = [path for path in [HERE / f"{stem}.c"] if path.exists()]
    # Weak, so that the function written by hand wins wherever there is one.
    empty = [f"__attribute__((weak)) int {name}(void) {{ return 0; }}" for name in functions]
    generated, versions = out / f"{stem}_noop.c", out / f"{stem}.map"
    generated.write_text("\n".join([*sorted(empty), ""]))
    versions.write_text(f"{soname} {{ global: *; }};\n")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", out / soname]
    command += [generated, *written, "-isystem", includes]
    command += [f"-Wl,-soname,{soname}", f"-Wl,--version-script={versions}"]
    subprocess.run(command, check=True)


def main(site_packages: str, folder: str) -> None:
    """Build every library that the CUDA provider in ``site_packages`` asks for."""
    site, out = Path(site_packages), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    includes = next(site.glob("nvidia/cu*/include"))
    for soname, functions in imported_functions(site / PROVIDER).items():
        build(soname, functions, includes, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
