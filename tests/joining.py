"""Small nets to join, and how tests join them."""

from __future__ import annotations

from pathlib import Path

from kdnet.net.join import Joined
from kdnet.runtime.joining import join_checked
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

DATA = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 }
    data_filler { type: "uniform" } data_filler { type: "constant" value: 1 } } }
"""
IMAGES = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { %s }
  data_param { source: "records" backend: LMDB batch_size: 4 shape { dim: 3 dim: 8 dim: 8 } } }
"""
FC = """
layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s"
  inner_product_param { num_output: %d weight_filler { type: "xavier" } } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "loss" }
"""
INPUT = """
layer { name: "in" type: "Input" top: "data" input_param { shape { %s } } }
"""


def fc(name: str, bottom: str = "data", outputs: int = 3) -> str:
    """An InnerProduct with a top of its own name."""
    return FC % (name, bottom, name, outputs)


def deploy(dims: tuple[int, ...] = (1, 3, 8, 8)) -> str:
    """A deploy net that ends in a Softmax."""
    shape = " ".join(f"dim: {dim}" for dim in dims)
    prob = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
    return INPUT % shape + fc("fc") + prob


PLAIN = DATA + fc("fc") + LOSS % "fc"


def joined(folder: Path, description: str, **nets: str) -> Joined:
    """Write the nets as ``NAME.prototxt`` and join them."""
    for name, text in nets.items():
        (folder / f"{name}.prototxt").write_text(text)
    file = folder / "join.prototxt"
    file.write_text(description)
    located = read_text(description, str(file), pb.JoinParameter)
    return join_checked(located, str(file))[0]


def pair(folder: Path, teacher: str, student: str, more: str = "", **options: str) -> Joined:
    """One teacher and one student; ``options`` are more text of their messages."""
    text = (
        f'teacher {{ net: "t.prototxt" {options.get("t", "")} }} '
        f'student {{ net: "s.prototxt" {options.get("s", "")} }} {more}'
    )
    return joined(folder, text, t=teacher, s=student)


def layers(net: Joined) -> dict[str, pb.LayerParameter]:
    """The layers by name."""
    return {one.message.name: one.message for one in net.layers}
