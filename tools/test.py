"""Evaluate: python tools/test.py mask_rcnn_swin_t work_dirs/.../epoch_36.pth"""

import sys

from swin_dense.cli.test import main

if __name__ == "__main__":
    sys.exit(main())
