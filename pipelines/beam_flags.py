"""Beam's own flags: which there are, and an error with a suggestion for those nobody knows.

Beam itself discards unknown flags with a warning, which turns a typing error into a
run with other settings than the user asked for.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from pipelines import flink_options, values
from pipelines.exit_codes import UsageError

REFUSED_RUNNERS = ("BundleBasedDirectRunner", "InteractiveRunner")


def parse(arguments: Sequence[str], ours: Sequence[str], workers: bool) -> PipelineOptions:
    """Check the arguments that are not ours, and read them.

    Args:
        arguments: what our parser has left over.
        ours: our own flags, for suggestions.
        workers: whether `--workers` is given.

    Raises:
        UsageError: an unknown flag, a bad value, an unknown runner.
    """
    parser = _parser()
    _, unknown = parser.parse_known_args(list(arguments))
    known = [*ours, *(flag for action in parser._actions for flag in action.option_strings)]
    problems = list(_unknown(unknown, known))
    if problems:
        raise UsageError(*problems)
    options = PipelineOptions(list(arguments))
    problems = list(_unsuitable(options, arguments, workers))
    if problems:
        raise UsageError(*problems)
    return options


def _parser() -> Any:
    """Return a parser of all flags of Beam."""

    class Parser(pipeline_options._BeamArgumentParser):
        def error(self, message: str) -> NoReturn:
            match = re.fullmatch(r"argument (\S+?)(?:/\S+)?: (.*)", message, re.DOTALL)
            raise UsageError(f"{match[1]}: {match[2]}" if match else message)

    parser = Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    return parser


def _unknown(arguments: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    values_follow = False
    for argument in arguments:
        if argument.startswith("-") and len(argument) > 1:
            flag = argument.partition("=")[0]
            dashed = "--" + flag.lstrip("-").replace("-", "_")
            hint = values.suggest(dashed, known) or "; see --help for the options"
            yield f"{flag} is not an option{hint}"
            values_follow = "=" not in argument
        elif not values_follow:
            yield f"'{argument}' stands alone; put globs and values with spaces in quotes"


def _unsuitable(options: PipelineOptions, arguments: Sequence[str], workers: bool) -> Iterator[str]:
    standard = options.view_as(StandardOptions)
    if standard.streaming:
        yield "--streaming does not fit a bounded input; leave it out"
    if workers and any(a.partition("=")[0] == "--direct_num_workers" for a in arguments):
        yield "--direct_num_workers and --workers say the same; give one of them"
    if options.view_as(DirectOptions).direct_num_workers < 0:
        yield "--direct_num_workers is negative; give 1 or more, or 0 for one a core"
    runner = standard.runner
    if runner:
        yield from _runner(runner)
    if not flink_options.wanted(options):
        for name in flink_options.given(options):
            yield f"--{name} is an option of Flink; it needs --runner FlinkRunner"


def _runner(name: str) -> Iterator[str]:
    known = {n.lower(): n for n in StandardOptions.KNOWN_RUNNER_NAMES}
    short = known.get(name.lower()) or known.get(f"{name.lower()}runner")
    if short in REFUSED_RUNNERS:
        yield f"--runner '{name}' can't run this; leave it out for the FnApiRunner"
    elif short is None and "." not in name:
        usable = [n for n in StandardOptions.KNOWN_RUNNER_NAMES if n not in REFUSED_RUNNERS]
        hint = values.suggest(name, usable) or f"; use one of {', '.join(usable)}"
        yield f"--runner '{name}' is not a runner of Beam{hint}"
    elif short is None:
        module, _, kind = name.rpartition(".")
        try:
            found = hasattr(importlib.import_module(module), kind)
        except ImportError:
            found = False
        if not found:
            yield f"--runner '{name}' can't be imported; is its package installed?"
