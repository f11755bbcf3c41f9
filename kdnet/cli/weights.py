"""Weight files: show, compare, audit, rename, merge, cut, convert, cast and average them.

No net, no data and no GPU is needed, but for audit, strip-teacher and rename --auto a net's
prototxt. Formats are known by content, and written by the ending of the output or --to.
"""

from weights_tools.command import HELP, NAME, add_arguments, run

__all__ = ["HELP", "NAME", "add_arguments", "run"]
