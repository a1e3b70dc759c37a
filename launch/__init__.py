"""Scripts and plans to run training on clusters; see README.md."""
