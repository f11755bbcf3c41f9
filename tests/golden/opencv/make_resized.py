"""Make the golden bytes of OpenCV's bilinear resizing.

It needs opencv-python-headless (4.14.0 made the file that is kept) and numpy.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

OUT = Path(__file__).with_name("resized.npz")
# Channels, height, width, and height and width after it.
SIZES = (
    (1, 1, 1, 5, 4),
    (1, 7, 1, 3, 4),
    (1, 28, 28, 32, 32),
    (3, 2, 3, 41, 29),
    (3, 10, 17, 23, 9),
    (3, 31, 40, 31, 20),
    (3, 32, 32, 16, 16),
    (3, 37, 53, 64, 24),
    (3, 50, 38, 26, 26),
)


def main() -> None:
    """Write the golden file."""
    generator = np.random.Generator(np.random.PCG64(3))
    golden = {}
    for number, (channels, height, width, *size) in enumerate(SIZES):
        image = generator.integers(0, 256, (channels, height, width), dtype=np.uint8)
        plain = np.ascontiguousarray(image.transpose(1, 2, 0))
        resized = cv2.resize(plain, tuple(reversed(size)), interpolation=cv2.INTER_LINEAR)
        golden[f"{number}/image"] = image
        golden[f"{number}/resized"] = resized.reshape(*size, channels).transpose(2, 0, 1)
    np.savez_compressed(OUT, **golden)


if __name__ == "__main__":
    main()
