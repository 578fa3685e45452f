"""Count what the model of a config costs: python tools/model_info.py CONFIG"""

import sys

from swin_dense.cli.model_info import main

if __name__ == "__main__":
    sys.exit(main())
