"""Compare: python tools/compare.py reports/before reports/after"""

import sys

from swin_dense.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
