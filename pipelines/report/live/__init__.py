"""The report while a stream runs: what is new, how fast, how far behind."""
