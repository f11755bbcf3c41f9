"""What to say of slips that come from other languages, and from Caffe's older formats."""

from __future__ import annotations

from kdnet.schema.lexer import NAME, NUMBER, STRING, SYMBOL, Token
from kdnet.schema.upgrade_v1 import TYPES as V1_TYPES

_OLD = "as in the old layers { }"
# Fields of the old layers, by what they are called now.
_FIELDS = {
    "blobs_lr": f"write param {{ lr_mult: ... }} for each blob, not blobs_lr {_OLD}",
    "weight_decay": f"write param {{ decay_mult: ... }} for each blob, not weight_decay {_OLD}",
    "blob_share_mode": f"write param {{ share_mode: ... }}, not blob_share_mode {_OLD}",
}
_NEWER = 'layers { } is the old format: newer types are written layer { type: "..." }'
_QUOTED = "or write layer { for layers {, since its types are in quotes"
_MARKS = (
    ("/", "a comment begins with #"),
    ("“”‘’„«»", 'quotes are straight: "..."'),
    ("[", "it takes one value"),
)


def old_field(message: str, field: str, newer: frozenset[str]) -> tuple[str, ...]:
    """Help lines for a field that only the other format of layers has.

    Args:
        message: the name of the message's type.
        field: a field that it does not have.
        newer: the fields of today's layers.
    """
    if message == "LayerParameter" and field in _FIELDS:
        return (_FIELDS[field],)
    if message == "V1LayerParameter" and field in newer:
        return (f'"{field}" belongs to today\'s layer {{ }}, not to the old layers {{ }}',)
    return ()


def old_type(message: str, field: str, token: Token) -> tuple[str, ...]:
    """Help lines for the type of a layer that is written as the other format writes it.

    For an engine, of which forks have more, that it may go.
    """
    if field == "engine":
        return ("engine has no effect in kdnet: leave it out",)
    if field != "type":
        return ()
    if message == "V1LayerParameter" and token.text[1:-1] not in V1_TYPES:
        return (_QUOTED,) if token.kind == STRING else (_NEWER,)
    if message == "LayerParameter" and token.kind == NAME and token.text in V1_TYPES:
        return (f'write "{V1_TYPES[token.text]}": such words belong to the old layers {{ }}',)
    return ()


def foreign_text(token: Token, before: Token, text: str, *, several: bool) -> tuple[str, ...]:
    """Help lines for a token that no field begins with, and no value.

    Args:
        token: the token.
        before: the token before it.
        text: the whole file.
        several: whether the field that was named last may have several values.
    """
    if token.kind == NUMBER and before.kind == SYMBOL and before.text == ",":
        one = "it takes one value; a fraction is written with a point"
        return ("several values are written [1, 2]" if several else one,)
    if text.startswith(("<<<<<<<", "=======", ">>>>>>>"), token.start):
        return ("a merge left its marks here",)
    if token.text == "[" and several:
        return ()
    return tuple(hint for letters, hint in _MARKS if token.text and token.text in letters)
