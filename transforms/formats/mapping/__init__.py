"""Mapping files: what a stranger's JSON means, written down once (`--mapping FILE`).

`document` reads and checks a file, `rules` is what it says, `apply` puts it to work on columns.
"""
