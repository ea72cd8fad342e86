"""Tests of `transforms.formats.ocel`."""
