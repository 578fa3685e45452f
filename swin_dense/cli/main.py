"""The console script: swin-dense train CONFIG ..., the same commands as the files in tools/."""

import importlib
import sys

COMMANDS = {  # name -> module with main(); each imports what it needs when it is called
    "train": "swin_dense.cli.train",
    "test": "swin_dense.cli.test",
    "image-demo": "swin_dense.cli.image_demo",
    "convert": "swin_dense.cli.convert",
    "model-info": "swin_dense.cli.model_info",
    "model-zoo": "swin_dense.cli.model_zoo",
    "benchmark": "swin_dense.cli.benchmark",
    "quickstart": "swin_dense.cli.quickstart",
}


def main() -> int:
    """Run the command named first."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: swin-dense {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 2
    return importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])
