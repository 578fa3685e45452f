"""Show what models find in pictures that are given to a page: python demo/web_demo.py"""

import sys

from swin_dense.cli.web_demo import main

if __name__ == "__main__":
    sys.exit(main())
