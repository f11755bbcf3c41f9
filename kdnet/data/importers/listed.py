"""Image files that a text file lists, as convert_imageset takes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdnet.data.datum import Item
from kdnet.data.image_list import image_bytes, read_image, read_list
from kdnet.data.importers.images import Image, Images, Options
from kdnet.data.order import permutation


def read_listed(path: Path, options: Options) -> Images:
    """The images of a list of paths and labels, colours in the order blue, green, red.

    Raises:
        DataError: bad-image-list, missing-image, corrupt-image, option-not-applicable.
    """
    options.accept("an image list", "gray", "encoded", "shuffle", "root")
    entries = read_list(path)
    if options.shuffle:
        order = permutation(len(entries), options.seed, "data lmdb")
        entries = [entries[row] for row in order.tolist()]

    def stream() -> Iterator[Image]:
        for entry in entries:
            pixels = read_image(entry, path, options.root, 1 if options.gray else 3)
            data = image_bytes(entry, path, options.root) if options.encoded else None
            yield Image(Item(pixels, entry.label), entry.path, data)

    return Images(len(entries), stream())
