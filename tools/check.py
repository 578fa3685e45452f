"""Try every kernel on this machine's devices: python tools/check.py"""

import sys

from swin_dense.cli.check import main

if __name__ == "__main__":
    sys.exit(main())
