"""Tests of `transforms.formats.mapping`."""
