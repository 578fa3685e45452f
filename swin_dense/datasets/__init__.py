"""Data on disk: the built-in shapes set, images as RGB arrays, and checks of the two layouts.

`shapes` writes a small set to learn from, `images` reads any picture, `coco_layout` and
`label_maps` say what is wrong with a set before training does. Nothing here needs OpenMMLab.
"""
