"""Avro: object container files, and messages by a schema registry, a fingerprint or a file.

`container` reads files, whose `blocks` are unpacked within bounds, `messages` decodes messages,
`lookup` asks a registry, `schemas` parses what may be parsed; a record becomes a JSON object, and
is read by columns like any other.
"""
