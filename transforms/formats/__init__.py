"""Wire formats: bytes to event batches. Pure, no Beam; one module a format, one line in `registry`."""
