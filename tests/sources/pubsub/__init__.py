"""Tests of the Pub/Sub source."""
