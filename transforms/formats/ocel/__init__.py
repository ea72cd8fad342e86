"""OCEL, object-centric event logs (https://www.ocel-standard.org).

Version 2.0 as JSON, XML and SQLite, version 1.0 as JSON.

An object of the chosen type (`--object_type`) is a case, and an event is one of each such object
that it relates to. `parts` makes events of a part of a log, whatever it was written as;
`documents`, `markup` and `database` read the three.
"""
