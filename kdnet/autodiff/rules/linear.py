"""Matrix products."""

from __future__ import annotations

from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.graph import Emitter, Tensor


def _swapped(g: Emitter, x: Tensor) -> Tensor:
    perm = list(range(x.rank))
    perm[-1], perm[-2] = perm[-2], perm[-1]
    return g.transpose(x, perm)


@vjp("MatMul")
def matmul_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """A·B ⇒ dA = dy·Bᵀ, dB = Aᵀ·dy; leading axes broadcast, the walk sums them."""
    a, b = call.input(0), call.input(1)
    if a.rank < 2 or b.rank < 2:
        call.unsupported("of a vector")
    return (
        g.matmul(dy, _swapped(g, b)) if call.wants[0] else None,
        g.matmul(_swapped(g, a), dy) if call.wants[1] else None,
    )


@vjp("Gemm")
def gemm_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """op(A)·op(B) + C ⇒ dA = dy·op(B)ᵀ, dB = op(A)ᵀ·dy, each transposed back; dC = dy."""
    if call.attrs.get("alpha", 1.0) != 1.0 or call.attrs.get("beta", 1.0) != 1.0:
        call.unsupported("with alpha or beta")
    a, b = call.input(0), call.input(1)
    flip_a, flip_b = bool(call.attrs.get("transA", 0)), bool(call.attrs.get("transB", 0))
    da = db = None
    if call.wants[0]:
        da = (
            g.gemm(b, dy, trans_a=flip_b, trans_b=True)
            if flip_a
            else g.gemm(dy, b, trans_b=not flip_b)
        )
    if call.wants[1]:
        db = (
            g.gemm(dy, a, trans_a=True, trans_b=flip_a)
            if flip_b
            else g.gemm(a, dy, trans_a=not flip_a)
        )
    return [da, db, dy][: len(call.op.inputs)]
