"""Imixs Data Streaming: the command line.

    python run.py --help
    python run.py transitions --input 'archive/**/*.xml' --output out
    python run.py inspect --input events.jsonl
    python run.py show out
    python run.py report --input out --output report.html
    python run.py serve --input out
    python run.py workers --port 50000

Picks a pipeline, reads its options, runs it and returns the exit code. No types and no
steps are defined here: this module is `__main__`, which a worker can't import.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

OURS = ("pipelines", "schemas", "transforms")


def main(argv: Sequence[str]) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name.

    Returns:
        The exit code (`pipelines.exit_codes`).
    """
    problem = shadowed()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2

    from pipelines import help, values  # noqa: PLC0415 (only once they are known to be ours)
    from pipelines.exit_codes import (  # noqa: PLC0415
        ExitCode,
        RunError,
        Terminated,
        UsageError,
    )
    from pipelines.registry import PIPELINES  # noqa: PLC0415
    from pipelines.screen import Screen  # noqa: PLC0415
    from pipelines.version import version  # noqa: PLC0415

    arguments = list(argv)
    screen = Screen()
    # Of a run: what is only looked at is never half written.
    is_run = bool(arguments) and arguments[0] in PIPELINES
    kept = "; the tables of an earlier run are as they were" if is_run else ""
    try:
        if not arguments:
            _say(help.overview(_program()))
            return ExitCode.USAGE
        if "--version" in arguments:
            _say(f"imixs-data-streaming {version()}")
            return ExitCode.OK
        name, rest = arguments[0], arguments[1:]
        wants_help = "--help" in arguments or "-h" in arguments
        if name in ("--help", "-h"):
            _say(help.overview(_program()))
            return ExitCode.OK
        if name == "inspect":
            return _inspect(rest, wants_help)
        if name == "show":
            return _show(rest, wants_help)
        if name == "report":
            return _report(rest, wants_help)
        if name == "serve":
            return _serve(rest, wants_help)
        if name == "workers":
            return _workers(rest, wants_help)
        if name not in PIPELINES:
            commands = [*PIPELINES, "inspect", "show", "report", "serve", "workers"]
            if name.startswith("-"):
                text = (
                    f"the pipeline's name comes first, before {name}; one of {', '.join(commands)}"
                )
            else:
                hint = values.suggest(name, commands) or f"; use one of {', '.join(commands)}"
                text = f"'{name}' is not a pipeline{hint}"
            raise UsageError(text)
        if wants_help:
            _say(help.of_pipeline(PIPELINES[name], _program()))
            return ExitCode.OK
        return _run(name, rest)
    except UsageError as error:
        for text in error.problems:
            screen.fail(" ".join(text.split()))
        return ExitCode.USAGE
    except RunError as error:
        screen.fail(error.text)
        if error.traceback:
            if "--verbose" in arguments:
                traceback.print_exception(error)
            else:
                screen.note("run it again with --verbose for the stack trace")
        return error.code
    except Terminated:
        screen.fail(f"terminated{kept}")
        return ExitCode.TERMINATED
    except KeyboardInterrupt:
        screen.fail(f"interrupted{kept}")
        return ExitCode.INTERRUPTED


def _run(name: str, arguments: Sequence[str]) -> int:
    """Options, frozen settings, run."""
    from pipelines import beam_log, options  # noqa: PLC0415
    from pipelines.registry import PIPELINES  # noqa: PLC0415
    from pipelines.screen import Screen  # noqa: PLC0415

    beam_log.configure(verbose="--verbose" in arguments)
    settings, flags = options.parse(arguments, name)
    screen = Screen(settings.quiet, settings.color)

    from pipelines.memory import spare_collections  # noqa: PLC0415

    spare_collections()
    # Beam: only when the options are right; and of the two only the one that runs.
    if settings.sources:
        from pipelines.live import launch_stream as launch  # noqa: PLC0415
    else:
        from pipelines.backfill import launch_backfill as launch  # noqa: PLC0415
    pipeline = replace(PIPELINES[name], tables=settings.tables)
    return launch(pipeline, settings, flags, screen)


def _inspect(arguments: Sequence[str], wants_help: bool) -> int:
    from pipelines import beam_log, help, options  # noqa: PLC0415
    from pipelines.exit_codes import ExitCode  # noqa: PLC0415
    from pipelines.screen import Screen  # noqa: PLC0415

    if wants_help:
        _say(help.of_inspect(_program()))
        return ExitCode.OK
    settings, most, as_json = options.parse_inspect(arguments)
    beam_log.configure(verbose=settings.verbose)

    from pipelines.inspect import as_json as to_json  # noqa: PLC0415 (Beam)
    from pipelines.inspect import look  # noqa: PLC0415
    from pipelines.inspect_screen import show_looks  # noqa: PLC0415

    found = look(settings, most)
    if as_json:
        _say(to_json(found).decode())
    else:
        show_looks(Screen(settings.quiet, settings.color), found)
    return ExitCode.OK


def _show(arguments: Sequence[str], wants_help: bool) -> int:
    from pipelines import beam_log, help, options  # noqa: PLC0415
    from pipelines.exit_codes import ExitCode  # noqa: PLC0415
    from pipelines.screen import Screen  # noqa: PLC0415

    if wants_help:
        _say(help.of_show(_program()))
        return ExitCode.OK
    folder, tables, rows = options.parse_show(arguments)
    beam_log.configure(verbose=False)

    from pipelines.show import show  # noqa: PLC0415 (Beam: only when the options are right)

    show(Screen(), folder, tables, rows)
    return ExitCode.OK


def _report(arguments: Sequence[str], wants_help: bool) -> int:
    from pipelines import beam_log  # noqa: PLC0415
    from pipelines.exit_codes import ExitCode  # noqa: PLC0415
    from pipelines.report import arguments as given  # noqa: PLC0415
    from pipelines.screen import Screen  # noqa: PLC0415

    if wants_help:
        _say(given.report_help(_program()))
        return ExitCode.OK
    wanted = given.parse_report(arguments)
    beam_log.configure(verbose=False)

    from pipelines.report.write import write  # noqa: PLC0415 (Beam: only when they are right)

    return write(Screen(), wanted)


def _serve(arguments: Sequence[str], wants_help: bool) -> int:
    from pipelines import beam_log  # noqa: PLC0415
    from pipelines.exit_codes import ExitCode  # noqa: PLC0415
    from pipelines.report import arguments as given  # noqa: PLC0415
    from pipelines.screen import Screen  # noqa: PLC0415

    if wants_help:
        _say(given.serve_help(_program()))
        return ExitCode.OK
    wanted = given.parse_serve(arguments)
    beam_log.configure("--verbose" in arguments)

    from pipelines.report.live.server import serve  # noqa: PLC0415 (Beam, as above)

    return serve(Screen(), wanted)


def _workers(arguments: Sequence[str], wants_help: bool) -> int:
    from pipelines import beam_log, help, options  # noqa: PLC0415
    from pipelines.exit_codes import ExitCode  # noqa: PLC0415
    from pipelines.screen import Screen  # noqa: PLC0415

    if wants_help:
        _say(help.of_workers(_program()))
        return ExitCode.OK
    host, port = options.parse_workers(arguments)
    beam_log.configure("--verbose" in arguments)

    from pipelines.worker_pool import serve  # noqa: PLC0415 (Beam: only when the options are right)

    return serve(host, port, Screen())


def shadowed() -> str | None:
    """Say which of our packages Python would not take from beside this file, if any."""
    here = Path(__file__).resolve().parent
    for name in OURS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return f"the package '{name}' is missing beside {Path(__file__).name}; install it again"
        found = Path(spec.origin).resolve().parent
        if found.parent != here:
            return (
                f"'{found}' hides our package of the same name; "
                "run from another folder, or take its folder off PYTHONPATH"
            )
    return None


def _say(text: str) -> None:
    """Print text as it is, for a reader who may leave before its end."""
    from pipelines.screen import Screen  # noqa: PLC0415

    Screen().say(text)


def _program() -> str:
    name = Path(sys.argv[0]).name
    return "imixs-streams" if name.startswith("imixs-streams") else "python run.py"


def _terminate(*_: Any) -> NoReturn:
    from pipelines.exit_codes import Terminated  # noqa: PLC0415

    raise Terminated


def command() -> int:
    """Run the command line of this process, for `sys.exit`."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if not shadowed():
            from pipelines.memory import keep_freed_memory  # noqa: PLC0415

            keep_freed_memory()
        code = main(sys.argv[1:])
    except KeyboardInterrupt as stopped:
        # So early, or so late, that `main` could not say so.
        from pipelines.exit_codes import ExitCode, Terminated  # noqa: PLC0415

        ended = isinstance(stopped, Terminated)
        print(f"error: {'terminated' if ended else 'interrupted'}", file=sys.stderr)
        code = ExitCode.TERMINATED if ended else ExitCode.INTERRUPTED
    sys.stdout.flush()
    sys.stderr.flush()
    if "apache_beam" in sys.modules:
        # Everything is written and closed. Threads of an engine may still be there: left alone
        # they would keep the process, or abort it when the interpreter is taken down.
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(command())
