"""Weights: read without running code, compared with a model before they are laid into it."""
