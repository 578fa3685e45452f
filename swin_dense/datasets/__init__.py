"""Data on disk: the built-in shapes set, images as RGB arrays, and checks of the two layouts.

`shapes` writes a small set to learn from, `images` reads any picture, `coco_file` reads instances
once for all processes, `coco_layout` and `label_maps` say what is wrong with a set before training
does, in `findings`. Nothing here needs OpenMMLab.
"""
