"""``python -m kdnet``."""

import sys

from kdnet.cli import main

sys.exit(main())
