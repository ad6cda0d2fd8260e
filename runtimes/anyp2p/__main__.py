"""``python -m anyp2p`` is the command ``anyp2p``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
