"""Write docs/model_zoo.md: python tools/model_zoo.py [--check]"""

import sys

from swin_dense.cli.model_zoo import main

if __name__ == "__main__":
    sys.exit(main())
