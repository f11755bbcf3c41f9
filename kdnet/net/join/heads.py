"""Finds the class scores of a net, and takes away what nobody needs of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from kdnet.errors import NetError, did_you_mean, fail
from kdnet.net.join.model import Kinds, LayerKind, Member, listed
from kdnet.net.model import LayerModel

SCORES = ("logits", "probabilities", "binary logits")


def find_logits(member: Member, kinds: Kinds) -> None:
    """Set the member's ``logits``; a Softmax at the end of a deploy net is taken away.

    Raises:
        NetError: unknown-blob, for a blob that the description names.
    """
    if member.entry.logits:
        if member.entry.logits not in member.tops:
            unknown_blob(member.entry.logits, member, ("logits",))
        member.logits = member.entry.logits
        _drop_final_softmax(member, kinds, member.logits)
        return
    found = _scored(member, kinds, "loss") or _scored(member, kinds, "metric")
    if found:
        member.logits = _before_softmax(member, kinds, found)
        return
    final = _final_softmax(member, kinds)
    if final is not None:
        member.logits = final.bottoms[0]
        member.layers.remove(final)
        return
    answers = [one.tops[0] for one in member.layers if kinds.of(one).whole and len(one.tops) == 1]
    if len(answers) == 1:
        member.logits = answers[0]


def require_logits(member: Member) -> None:
    """Refuse a net whose class scores are not known where they are needed.

    Raises:
        NetError: missing-logits, with the blobs that may be meant.
    """
    if not member.logits:
        text = (
            f'{member.name}: "{member.path}" shows no class scores: no loss or metric on logits, '
            "and no Softmax at its end"
        )
        hint = (f"name the blob of scores; from the end: {listed(member.tops[::-1], 8)}",)
        fail(NetError, "missing-logits", text, span=member.span("net"), help=hint)


def unknown_blob(name: str, member: Member, path: tuple[str | int, ...]) -> NoReturn:
    """Raise unknown-blob at a field of the member's description."""
    text = f'{member.name}: "{member.path}" has no blob "{name}"'
    hint = did_you_mean(name, member.tops) or (f"its blobs: {listed(member.tops)}",)
    fail(NetError, "unknown-blob", text, span=member.span(*path), help=hint)


def _scored(member: Member, kinds: Kinds, which: str) -> str:
    """The class scores that the last loss or metric of the net reads, or ""."""
    for layer in reversed(member.layers):
        kind = kinds.of(layer)
        if getattr(kind, which):
            for index, bottom in enumerate(layer.bottoms):
                if kind.role(index) in SCORES:
                    return bottom
    return ""


def _before_softmax(member: Member, kinds: Kinds, blob: str) -> str:
    """What a Softmax made the blob of, else the blob."""
    for layer in reversed(member.layers):
        if blob in layer.tops and blob not in layer.bottoms:
            return layer.bottoms[0] if kinds.of(layer).softmax and layer.bottoms else blob
    return blob


def _final_softmax(member: Member, kinds: Kinds) -> LayerModel | None:
    """The one Softmax whose top nobody reads."""
    read = {bottom for layer in member.layers for bottom in _others_bottoms(layer)}
    ends = [layer for layer in member.layers if not set(layer.tops) & read]
    found = [layer for layer in ends if kinds.of(layer).softmax and layer.bottoms]
    return found[0] if len(found) == 1 else None


def _others_bottoms(layer: LayerModel) -> tuple[str, ...]:
    """What a layer reads and does not make anew."""
    return tuple(bottom for bottom in layer.bottoms if bottom not in layer.tops)


def _drop_final_softmax(member: Member, kinds: Kinds, logits: str) -> None:
    """Without a loss or a metric, a Softmax over the logits was only there to be looked at."""
    final = _final_softmax(member, kinds)
    if final is not None and final.bottoms[0] == logits:
        member.layers.remove(final)


def strip(member: Member, kinds: Kinds, used: Iterable[str]) -> None:
    """Take away losses and metrics that do not stay, and what only they needed.

    Of a net whose phase is fixed, a teacher, only what leads to a used blob or to what stays is
    kept; a student keeps everything that was not made for what went.

    Args:
        member: The net; its ``layers`` change.
        kinds: What is known of layers.
        used: Blobs of the net that others read.
    """
    stays = [_stays(member, kinds.of(layer)) for layer in member.layers]
    kept = [layer for layer, stay in zip(member.layers, stays, strict=True) if stay]
    gone = [layer for layer, stay in zip(member.layers, stays, strict=True) if not stay]
    wanted = {*used, *([member.logits] if member.logits else [])}
    if member.frozen:
        ends = [kinds.of(layer).loss or kinds.of(layer).metric for layer in kept]
        member.layers = _leading_to(kept, wanted, ends)
    else:
        member.layers = _without_orphans(kept, gone, wanted)


def _stays(member: Member, kind: LayerKind) -> bool:
    if kind.loss:
        return member.keeps("losses")
    return member.keeps("metrics") if kind.metric else True


def _leading_to(
    layers: Sequence[LayerModel], wanted: set[str], ends: Sequence[bool]
) -> list[LayerModel]:
    found, wanted = [], set(wanted)
    for layer, end in zip(reversed(layers), reversed(ends), strict=True):
        if end or wanted.intersection(layer.tops):
            found.append(layer)
            wanted.update(layer.bottoms)
    return found[::-1]


def _without_orphans(
    layers: list[LayerModel], gone: Sequence[LayerModel], wanted: set[str]
) -> list[LayerModel]:
    """Drop what is read by nobody any more, and was."""
    once = {bottom for layer in gone for bottom in layer.bottoms}
    while True:
        read = wanted | {bottom for layer in layers for bottom in _others_bottoms(layer)}
        unread = once - read
        kept = [layer for layer in layers if not unread.intersection(layer.tops)]
        once.update(
            bottom
            for layer in layers
            if unread.intersection(layer.tops)
            for bottom in layer.bottoms
        )
        if len(kept) == len(layers):
            return kept
        layers = kept
