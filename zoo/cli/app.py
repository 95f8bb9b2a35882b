"""The program ``zoo``: global options, exit codes and the display of errors.

Exit codes: 0 done, 1 error, 2 usage (a wrong option or name), 3 a leak between splits, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from zoo.cli.arguments.parser import Parser, global_options
from zoo.cli.commands import (
    calibrating,
    checking,
    doctor,
    evaluating,
    fewshot,
    files,
    fusing,
    listing,
    multimodal,
    new_plugin,
    planning,
    plugins,
    training,
    using,
)
from zoo.cli.commands.selecting import adapting, crossval, merge, pretraining, ranking, tune
from zoo.cli.output.stdout import Output, plain_warnings
from zoo.cli.output.wording import as_typed, use_flags
from zoo.errors import InterruptedRunError, OptionError, PluginError, ZooError, count, fault_list
from zoo.plugins.entry_points import installed
from zoo.plugins.loader import GROUP
from zoo.plugins.policy import Policy, current_policy, unknown_names
from zoo.util.atomic_write import FULL

RECOVERY = ("doctor", "new-plugin")  # must work with broken plugins


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code.

    Args:
        argv: Arguments without the program's name; None for those of the process.
    """
    if sys.stdout is None:  # closed by the parent process
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # until the process ends
    started = time.monotonic()  # a budget of time holds for the whole command
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words)
    options = parser.parse(words)
    options.words, options.started = words, started
    plain_warnings()
    use_flags(parser.flags(options.command))
    out = Output(sys.stdout)
    # Output of plugins and libraries must not mix with a JSON document.
    aside = contextlib.redirect_stdout(sys.stderr) if getattr(options, "json", False) else contextlib.nullcontext()
    try:
        with aside:
            code = _run(options, out)
        out.stream.flush()
    except (ZooError, InterruptedRunError) as error:
        if options.debug:
            raise
        print(f"error: {as_typed(str(error))}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader, such as head, is done; Python would print an error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno in FULL and error.filename is None and not options.debug:  # of standard output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would print an error at exit
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
            sys.exit(1)
        if options.debug or error.errno != errno.ENAMETOOLONG:
            raise
        print(f"error: no file can have a name as long as {str(error.filename)[:80]!r}…", file=sys.stderr)
        code = 2
    sys.exit(code)


def build_parser(words: Sequence[str] = ()) -> Parser:
    """Return the parser of all commands.

    Args:
        words: The command line. The options of a run are declared with pydantic, so their flags are added only if a command
            that takes them is named.
    """
    return _parser(frozenset(words).intersection(training.WITH_OPTIONS))


@functools.cache  # a program that calls main() more than once, as the tests do, waits 20 ms for it once
def _parser(with_options: frozenset[str]) -> Parser:
    from zoo import __version__

    parser = Parser(prog="zoo", description="Transfer learning with any pretrained backbone.")
    parser.add_argument("--version", action="version", version=f"zoo {__version__}")
    global_options(parser, front=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    choosing = (ranking, crossval, tune, merge, adapting, pretraining)
    trained = (evaluating, calibrating, using, fewshot, multimodal, fusing)
    modules = (listing, plugins, checking, planning, training, *choosing, *trained, files, doctor, new_plugin)
    for module in modules:
        module.register(commands)
    for name in with_options:
        training.add_option_flags(commands.choices[name])
    for command in commands.choices.values():
        global_options(command, front=False)
    return parser


def _run(options: argparse.Namespace, out: Output) -> int:
    from zoo.registry.registry import default_registry, use_registry

    files = [*options.registry_before, *options.registry]
    policy = _policy(options)
    if files or policy:
        use_registry(files=files, policy=policy)
    strict = options.strict_plugins and options.command not in RECOVERY
    faults = default_registry().faults if strict else []
    # `zoo plugins` shows the faults and fails afterwards; other commands fail before any work.
    if faults and options.command != "plugins":
        raise PluginError(fault_list(f"the plugins have {count(len(faults), 'fault')}", faults, "See: zoo plugins"))
    options.run(options, out)
    return 1 if faults else 0


def _policy(options: argparse.Namespace) -> Policy | None:
    """Return the plugin policy of the command line, or None."""
    block, allow = [*options.block_before, *options.block], [*options.allow_before, *options.allow]
    if not (block or allow or options.no_plugins):
        return None
    points = installed(GROUP).points
    unknown = unknown_names([*block, *allow], points)
    if unknown:
        known = ", ".join(sorted({point.name for point in points}))
        raise OptionError(f"no plugin is called {', '.join(unknown)}; the plugins are: {known}")
    return current_policy(block, [] if options.no_plugins else allow or None)
