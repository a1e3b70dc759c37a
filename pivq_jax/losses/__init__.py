"""Loss functions: pixel, perceptual, adversarial, recombination and variance terms."""
