"""A page in the browser that shows what a model finds in pictures that are given to it."""
