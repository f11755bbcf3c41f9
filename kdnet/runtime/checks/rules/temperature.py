"""A temperature whose square nobody puts back."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.errors import Diagnostic
from kdnet.graph import Op, Tensor
from kdnet.layers import layer_class
from kdnet.runtime.checks.registry import Subject, rule, warning


@rule("temperature-without-square")
def temperature_without_square(subject: Subject) -> Iterator[Diagnostic]:
    """A softened loss without T²: its gradient shrinks by T² (Hinton et al. 2015, section 2)."""
    forward = subject.probe.forward
    for index, layer in enumerate(forward.net.layers):
        kind = layer_class(layer)
        if not kind.is_loss:
            continue
        params = getattr(layer.message, kind.params_field or "loss_param")
        known = params.DESCRIPTOR.fields_by_name
        # Of all types only this one can leave the square out; some have several temperatures.
        square = "scale_by_t2" in known
        temperature = float(params.temperature) if square else 1.0
        loses = square and not params.scale_by_t2
        how = "set scale_by_t2: true"
        if not kind.roles or "logits" not in kind.roles[0] or "student" not in kind.roles[0]:
            temperature = _stock_temperature(subject, index)
            loses = abs(_weight(subject, index)) <= 1
            how = f"multiply its loss_weight by {temperature**2:g}"
        if loses and temperature > 1:
            text = (
                f'layer "{layer.name}": temperature {temperature:g} without its square: the '
                f"gradient is about {temperature**2:g} times smaller than at temperature 1"
            )
            yield warning("temperature-without-square", text, layer.position, how)


def _weight(subject: Subject, index: int) -> float:
    given = subject.probe.forward.net.layers[index].message.loss_weight
    return float(given[0]) if given else 1.0


def _stock_temperature(subject: Subject, index: int) -> float:
    """1/c where a loss of two softmaxes has logits multiplied by a constant c; else 1."""
    forward = subject.probe.forward
    bottoms = forward.bottoms.get(index, ())[:2]
    factors = [_factor(forward.g.ops, tensor) for tensor in bottoms]
    if len(factors) == 2 and all(factors) and factors[0] == factors[1]:
        return float(1 / (factors[0] or 1))
    return 1.0


def _factor(ops: list[Op], tensor: Tensor) -> float | None:
    softmax = next((op for op in ops if tensor in op.outputs and op.type == "Softmax"), None)
    if softmax is None:
        return None
    scale = next((op for op in ops if softmax.inputs[0] in op.outputs and op.type == "Mul"), None)
    if scale is None or scale.inputs[1] is None or scale.inputs[1].value is None:
        return 1.0
    value = scale.inputs[1].value
    return round(float(value), 6) if value.size == 1 and value > 0 else 1.0
