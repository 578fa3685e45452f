"""What runs a complete config: training, evaluation, prediction, weights, counting."""
