"""Draw what a model finds: python demo/video_demo.py clip.mp4 CHECKPOINT --out drawn.mp4"""

import sys

from swin_dense.cli.video_demo import main

if __name__ == "__main__":
    sys.exit(main())
