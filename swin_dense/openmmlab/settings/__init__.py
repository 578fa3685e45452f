"""A config made complete: read, checked, its data, classes, channels and sizes filled in."""
