"""Formats that engines write to brokers: JSON with an envelope, as messages and in files."""
