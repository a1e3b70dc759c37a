"""The model in PyTorch, written from docs/architecture.md; shares no code with pivq_jax."""
