"""Tests of `transforms.formats.avro`."""
