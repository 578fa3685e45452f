"""Train a model: python tools/train.py mask_rcnn_swin_t --data-root data/coco"""

import sys

from swin_dense.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
