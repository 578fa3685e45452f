"""Draw samples as the model sees them: python tools/browse_data.py CONFIG --data-root DIR"""

import sys

from swin_dense.cli.browse_data import main

if __name__ == "__main__":
    sys.exit(main())
