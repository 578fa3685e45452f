"""Numbers and predictions as text and pictures. Knows nothing of models."""
