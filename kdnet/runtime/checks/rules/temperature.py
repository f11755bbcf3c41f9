"""A temperature whose square nobody puts back."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.errors import Diagnostic
from kdnet.graph import Op, Tensor
from kdnet.layers import layer_class, params_of, roles_of
from kdnet.runtime.checks.registry import Subject, rule, warning


@rule("temperature-without-square")
def temperature_without_square(subject: Subject) -> Iterator[Diagnostic]:
    """A softened loss without T²: its gradient shrinks by T² (Hinton et al. 2015, section 2)."""
    forward = subject.probe.forward
    for index, layer in enumerate(forward.net.layers):
        if not layer_class(layer).is_loss:
            continue
        params = params_of(layer)
        # Only a type that can leave the square out has one temperature; others have several.
        square = getattr(params, "scale_by_t2", None)
        temperature = 1.0 if square is None else float(params.temperature)
        loses = square is False
        how = "set scale_by_t2: true"
        if roles_of(layer)[:1] != ("student logits",):
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
