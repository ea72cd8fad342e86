"""Tests of databases as outputs."""
