"""Trained models as files that other programs run.

`graphs/` says what a model computes, in tensors with fixed numbers of rows; `formats.py` writes
that for a runtime; `sessions.py` runs such files. Nothing here knows mmdet or mmseg: heads are
asked for what they have.
"""
