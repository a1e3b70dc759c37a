"""Loss functions: pixel, perceptual, adversarial and recombination terms, and terms of latents."""
