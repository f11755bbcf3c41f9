"""``python -m weights_tools``: the same as ``kdnet weights``."""

import argparse
import sys

from kdnet.errors import KdnetError
from weights_tools.command import HELP, add_arguments, run


def main() -> int:
    """Parse the command line, run it and return its exit status."""
    parser = argparse.ArgumentParser(prog="kdnet weights", description=HELP.capitalize() + ".")
    add_arguments(parser)
    args = parser.parse_args()
    try:
        return run(args)
    except KdnetError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
