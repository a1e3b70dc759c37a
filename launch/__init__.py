"""Scripts and plans for training on clusters; see README.md."""
