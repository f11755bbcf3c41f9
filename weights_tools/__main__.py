"""``python -m weights_tools``: the same as ``kdnet weights``."""

import os
import sys

from kdnet.commands import CommandParser
from kdnet.errors import KdnetError
from weights_tools.command import HELP, add_arguments, run


def main() -> int:
    """Parse the command line, run it and return its exit status."""
    parser = CommandParser(prog="kdnet weights", description=HELP.capitalize() + ".")
    add_arguments(parser)
    args = parser.parse_args()
    try:
        status = run(args)
        sys.stdout.flush()
    except KdnetError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except MemoryError as error:
        sys.stderr.write(f"error: not enough memory: {error} [out-of-memory]\n")
        return 3
    except BrokenPipeError:
        # Whoever read the output, such as head, has seen enough; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
