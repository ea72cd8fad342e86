"""Wire formats, pure and without Beam: one module a format, one line in `registry`."""
