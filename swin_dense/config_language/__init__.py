"""The language of configs: a small part of Python that is evaluated as data, never run."""
