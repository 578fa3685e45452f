"""Evaluate: python tools/test.py configs/mask_rcnn_swin_t.py work_dirs/.../epoch_36.pth"""

import sys

from swin_dense.cli.test import main

if __name__ == "__main__":
    sys.exit(main())
