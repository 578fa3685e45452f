"""Measure speed and memory as ratios: python tools/benchmark.py {ops,backbone,memory,growth}"""

import sys

from swin_dense.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
