"""Look at a large image: python demo/large_image_demo.py scan.tif CONFIG CHECKPOINT --out found"""

import sys

from swin_dense.cli.large_image_demo import main

if __name__ == "__main__":
    sys.exit(main())
