"""Streams on a real Flink cluster whose parts are killed, one after the other, while events come.

`python -m tests.kills` (or `make kills`) runs the suite and writes its figures to
`docs/reliability.md`; a cut of it is a test. What happens is drawn from a seed (`scenario`), done
to a broker and a cluster of its own (`stage`, `victims`), watched (`watching`), and what is left
in the topics is held against a bounded run over the same messages (`recount`).
"""
