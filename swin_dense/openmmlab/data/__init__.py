"""mmdet's and mmseg's data sets, transforms and metrics, with our readers."""
