"""Rows of the data layers: what shapes their tops have, without any data at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass(frozen=True)
class DataCase:
    """A data layer whose prototxt (without name and tops) states what its items are.

    ``shapes`` are those of its tops, ``given`` is what the command line says.
    """

    id: str
    prototxt: str
    shapes: tuple[Shape, ...]
    given: Mapping[str, Shape] = field(default_factory=dict)


CASES = (
    DataCase(
        "Data/command_line",
        'type: "Data" data_param { source: "nowhere" batch_size: 5 }',
        ((5, 3, 8, 6), (5,)),
        {"top0": (3, 8, 6)},
    ),
    DataCase(
        "Data/crop",
        'type: "Data" transform_param { crop_size: 4 } data_param { source: "nowhere" '
        "batch_size: 5 shape { dim: 3 dim: 8 dim: 6 } }",
        ((5, 3, 4, 4),),
    ),
    DataCase(
        "DummyData/old_fields",
        'type: "DummyData" dummy_data_param { num: 2 channels: 3 height: 4 width: 5 }',
        ((2, 3, 4, 5),),
    ),
    DataCase(
        "DummyData/one_shape",
        'type: "DummyData" dummy_data_param { shape { dim: 2 dim: 3 } }',
        ((2, 3), (2, 3)),
    ),
    DataCase(
        "HDF5Data/stated",
        'type: "HDF5Data" hdf5_data_param { source: "nowhere" batch_size: 4 '
        "shape { dim: 3 dim: 2 } shape { } }",
        ((4, 3, 2), (4,)),
    ),
    DataCase(
        "ImageData/resized",
        'type: "ImageData" image_data_param { source: "nowhere" batch_size: 2 new_height: 6 '
        "new_width: 5 }",
        ((2, 3, 6, 5), (2,)),
    ),
    DataCase(
        "Input/command_line",
        'type: "Input" input_param { shape { dim: 2 dim: 3 } }',
        ((2, 3), (7, 3)),
        {"top1": (7, 3)},
    ),
    DataCase("Input/command_line_alone", 'type: "Input"', ((1, 2),), {"top0": (1, 2)}),
    DataCase(
        "Input/each",
        'type: "Input" input_param { shape { dim: 2 dim: 3 } shape { } }',
        ((2, 3), ()),
    ),
    DataCase("Input/one_for_all", 'type: "Input" input_param { shape { dim: 2 } }', ((2,), (2,))),
    DataCase(
        "MemoryData/stated",
        'type: "MemoryData" memory_data_param { batch_size: 2 channels: 1 height: 3 width: 4 '
        'source: "nowhere.npz" }',
        ((2, 1, 3, 4), (2,)),
    ),
    DataCase(
        "RecordNumber/stated",
        'type: "RecordNumber" record_number_param { batch_size: 3 }',
        ((3,),),
    ),
    DataCase(
        "SoftLabels/stated",
        'type: "SoftLabels" soft_labels_param { source: "nowhere" num_classes: 7 batch_size: 3 }',
        ((3, 7),),
    ),
    DataCase(
        "WindowData/stated",
        'type: "WindowData" window_data_param { source: "nowhere" batch_size: 4 } '
        "transform_param { crop_size: 9 }",
        ((4, 3, 9, 9), (4,)),
    ),
)
