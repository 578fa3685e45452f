"""Processes of one run: each is watched, and none waits for ever for another that is lost."""
