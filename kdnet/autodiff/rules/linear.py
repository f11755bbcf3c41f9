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
    """A·B ⇒ dA = dy·Bᵀ, dB = Aᵀ·dy; leading axes broadcast, the walk sums them.

    A vector counts as a row on the left and as a column on the right.
    """
    a, b = call.input(0), call.input(1)
    row, column = a.rank == 1, b.rank == 1
    outer = dy.shape[: dy.rank - (not row) - (not column)]
    dy = g.reshape(dy, (*outer, 1 if row else a.shape[-2], 1 if column else b.shape[-1]))
    da = db = None
    if call.wants[0]:
        da = g.matmul(dy, g.reshape(b, (1, b.size)) if column else _swapped(g, b))
    if call.wants[1]:
        db = g.matmul(g.reshape(a, (a.size, 1)) if row else _swapped(g, a), dy)
        db = g.reshape(db, db.shape[:-1]) if column else db
    return da, db


@vjp("Gemm")
def gemm_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """α·op(A)·op(B) + β·C ⇒ dA = α·dy·op(B)ᵀ, dB = α·op(A)ᵀ·dy, dC = β·dy.

    dA and dB are transposed back.
    """
    alpha, beta = float(call.attrs.get("alpha", 1.0)), float(call.attrs.get("beta", 1.0))
    dc = g.mul(dy, beta) if len(call.wants) > 2 and call.wants[2] else None
    dy = g.mul(dy, alpha) if any(call.wants[:2]) else dy
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
    return [da, db, dc][: len(call.op.inputs)]
