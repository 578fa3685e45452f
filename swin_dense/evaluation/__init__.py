"""Predictions judged by the truth: AP and AR of boxes and masks, confusion of label maps."""
