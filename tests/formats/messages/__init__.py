"""Tests of the formats that engines write to brokers."""
