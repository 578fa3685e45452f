"""Make a data set of another format into a data root: python tools/prepare_data.py yolo DIR ..."""

import sys

from swin_dense.cli.prepare_data import main

if __name__ == "__main__":
    sys.exit(main())
