"""The report: a run's tables as one page, written once (`report`) or kept current (`serve`)."""
