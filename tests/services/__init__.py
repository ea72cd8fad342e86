"""Real parts for tests and developers: a Kafka broker and the Prism runner.

Fetched or built once with Maven and Go (`python -m tests.services`, `make services`), kept in
the user's cache, run on free loopback ports, stopped by process id. The fixtures are in
`fixtures`; a part that cannot be had skips its tests, or fails them where CI is set.
"""
