"""Draw what a model finds: python demo/image_demo.py photo.jpg CONFIG CHECKPOINT"""

import sys

from swin_dense.cli.image_demo import main

if __name__ == "__main__":
    sys.exit(main())
