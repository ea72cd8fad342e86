"""Arrow schemas of events and output tables, and the dead-letter envelope. Imports nothing of ours."""
