"""Other projects' weights -> ours, and back: dicts in, dicts out.

`recognition` finds architecture and layout of a state dict among those that are registered.
"""

from swin_dense.checkpoints.layouts.recognition import (
    Converted,
    UnknownWeightsError,
    architecture_of,
    convert,
    export,
    known,
    takes_heads,
)

__all__ = [
    "Converted",
    "UnknownWeightsError",
    "architecture_of",
    "convert",
    "export",
    "known",
    "takes_heads",
]
