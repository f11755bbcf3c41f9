"""Einsum: its gradient by one factor is an Einsum of dy and the other factors."""

from __future__ import annotations

from string import ascii_letters

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor

ELLIPSIS = "..."


@vjp("Einsum")
def einsum_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """Σ Π xᵢ[tᵢ] as y[t] ⇒ dxᵢ[tᵢ] = Σ dy[t]·Π xⱼ[tⱼ] over j ≠ i.

    It is repeated along the axes that only xᵢ has.
    """
    terms, result = _terms(call)
    found: list[Tensor | None] = []
    for index, want in enumerate(call.wants):
        found.append(_by_factor(g, call, dy, (terms, result), index) if want else None)
    return found


def _terms(call: Call) -> tuple[list[str], str]:
    """One letter an axis for each factor, and for the output, without ellipses."""
    left, arrow, right = str(call.attrs["equation"]).replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        used = sorted(set(left) - set(",."))
        right = (ELLIPSIS if ELLIPSIS in left else "") + "".join(
            letter for letter in used if left.count(letter) == 1
        )
    spare = [letter for letter in ascii_letters if letter not in left]
    widths = {
        call.input(index).rank - len(term.replace(ELLIPSIS, ""))
        for index, term in enumerate(terms)
        if ELLIPSIS in term
    }
    dots = "".join(spare[: max(widths, default=0)])
    terms = [term.replace(ELLIPSIS, dots) for term in terms]
    if any(len(set(term)) < len(term) for term in terms):
        call.unsupported("with an axis twice in one factor")
    return terms, right.replace(ELLIPSIS, dots)


def _by_factor(
    g: Emitter, call: Call, dy: Tensor, equation: tuple[list[str], str], index: int
) -> Tensor:
    terms, result = equation
    others = [place for place in range(len(terms)) if place != index]
    known = set(result).union(*(terms[place] for place in others))
    kept = "".join(letter for letter in terms[index] if letter in known)
    given = ",".join([result, *(terms[place] for place in others)])
    factors = [call.input(place) for place in others]
    _refuse_broadcast(call, terms)
    partial = g.op("Einsum", dy, *factors, equation=f"{given}->{kept}")
    x = call.input(index)
    shape = [
        size if letter in known else 1 for letter, size in zip(terms[index], x.shape, strict=True)
    ]
    return g.expand(g.reshape(partial, shape), x.shape)


def _refuse_broadcast(call: Call, terms: list[str]) -> None:
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        for letter, size in zip(term, call.input(index).shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                call.unsupported(f"with sizes {sizes[letter]} and {size} along {letter}")
