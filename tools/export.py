"""Write a model for another runtime: python tools/export.py work_dirs/run --out model.onnx"""

import sys

from swin_dense.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
