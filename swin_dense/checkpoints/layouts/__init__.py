"""Other projects' Swin weights -> ours, and back: dicts in, dicts out.

`recognition` finds the layout of a state dict; a file of its own has the names of each family.
"""

from swin_dense.checkpoints.layouts.recognition import LAYOUTS, Converted, convert, export

__all__ = ["LAYOUTS", "Converted", "convert", "export"]
