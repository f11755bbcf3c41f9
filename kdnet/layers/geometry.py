"""Height and width of a kernel, a pad, a stride: Caffe's two ways to write them."""

from __future__ import annotations

from kdnet.layers.base import Layer

Pair = tuple[int, int]


def pair_of(layer: Layer, name: str, default: int | None) -> Pair:
    """``name`` once, twice (height, width) or as ``name_h`` and ``name_w``.

    Args:
        layer: the layer, whose parameters and positions are read.
        name: "kernel", "pad", "stride" or "dilation"; a kernel's single field is kernel_size.
        default: the value where nothing is given; None makes it required.

    Raises:
        LayerError: bad-parameter, when both ways are mixed, one of two is missing, or a value
            that must be positive is 0.
    """
    single = "kernel_size" if name == "kernel" else name
    given = _stated(layer, name, single)
    if not given:
        layer.require(default is not None, at=single, say="is required")
        given = [default or 0]
    for value in given:
        layer.require(value > 0 or name == "pad", at=single, say="must be positive")
    return (given[0], given[-1])


def _stated(layer: Layer, name: str, single: str) -> list[int]:
    params = layer.params
    fields = params.DESCRIPTOR.fields_by_name
    both = [f"{name}_h", f"{name}_w"]
    apart = [field for field in both if field in fields and params.HasField(field)]
    if fields[single].is_repeated:
        values = list(getattr(params, single))
    else:
        values = [getattr(params, single)] if params.HasField(single) else []
    layer.require(len(values) <= 2, at=single, say=f"is given {len(values)} times for two axes")
    layer.require(not (apart and values), at=single, say=f"is given beside {' and '.join(apart)}")
    if apart:
        layer.require(len(apart) == 2, at=apart[0], say=f"wants {both[0]} and {both[1]} together")
        return [getattr(params, field) for field in both]
    return values
