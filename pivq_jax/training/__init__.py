"""Training: objective, optimizer, steps, loop, checkpoints and logs."""
