"""Make the golden pixels of OpenCV's readers: a file of each kind, in colour and in grey.

It needs opencv-python-headless (4.14.0 made the file that is kept) and numpy.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

OUT = Path(__file__).with_name("decoded.npz")
KINDS = ("bmp", "jpg", "png", "ppm", "tif", "webp")


def main() -> None:
    """Write the golden file."""
    generator = np.random.Generator(np.random.PCG64(4))
    noise = generator.integers(0, 256, (21, 30, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:21, :30]
    smooth = np.stack([rows * 9, columns * 8, rows + columns], 2).astype(np.uint8)
    golden = {}
    for kind in KINDS:
        # What a JPEG makes of noise differs from one library to the next.
        image = smooth if kind == "jpg" else noise
        data = cv2.imencode(f".{kind}", image)[1]
        golden[f"{kind}/file"] = data
        golden[f"{kind}/colour"] = cv2.imdecode(data, cv2.IMREAD_COLOR).transpose(2, 0, 1)
        golden[f"{kind}/grey"] = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)[None]
    np.savez_compressed(OUT, **golden)


if __name__ == "__main__":
    main()
