"""Train, evaluate and draw two small models: python tools/quickstart.py"""

import sys

from swin_dense.cli.quickstart import main

if __name__ == "__main__":
    sys.exit(main())
