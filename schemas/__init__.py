"""Arrow schemas of events and output tables, coders, and the dead-letter envelope."""
