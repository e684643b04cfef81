"""Images: from a generator or from data to blocks of uint8."""
