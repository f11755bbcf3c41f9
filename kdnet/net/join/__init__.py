"""Joining nets that were never made for one another: teachers and students in one net."""

from kdnet.net.join.build import Joined, join
from kdnet.net.join.model import STUDENT, Kinds, LayerKind, Member, model_of
from kdnet.net.join.text import joined_text

__all__ = [
    "STUDENT",
    "Joined",
    "Kinds",
    "LayerKind",
    "Member",
    "join",
    "joined_text",
    "model_of",
]
