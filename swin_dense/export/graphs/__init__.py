"""What each kind of model computes, so that one trace of it holds for every image size and batch.

Nothing here looks at values: where mmdet keeps as many boxes as it finds, these keep a fixed number
with a score, 0 for those that are none.
"""
