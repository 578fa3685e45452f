"""Check a config's data before a training: python tools/doctor.py CONFIG"""

import sys

from swin_dense.cli.doctor import main

if __name__ == "__main__":
    sys.exit(main())
