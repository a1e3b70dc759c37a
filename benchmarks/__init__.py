"""Programs that make the figures of the documentation; what they compare with runs beside them."""
