"""Show a recorded iteration again: python tools/replay.py work_dirs/RUN/not_finite_37.pth"""

import sys

from swin_dense.cli.replay import main

if __name__ == "__main__":
    sys.exit(main())
