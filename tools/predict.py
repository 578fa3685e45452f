"""Predict: python tools/predict.py photos work_dirs/run --out predictions"""

import sys

from swin_dense.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
