"""``kdnet weights``: show weight files and rename their layers."""

from weights_tools.command import HELP, NAME, add_arguments, run

__all__ = ["HELP", "NAME", "add_arguments", "run"]
