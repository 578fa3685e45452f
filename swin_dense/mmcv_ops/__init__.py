"""Our ops under mmcv's names."""
