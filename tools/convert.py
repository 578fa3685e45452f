"""Rewrite weights of any layout as safetensors: python tools/convert.py SRC DST"""

import sys

from swin_dense.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
