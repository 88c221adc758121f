"""The command line. A command is a module of this package: ``fcn NAME`` is ``fcn/cli/NAME.py``, nothing lists them.

A command's docstring begins with its help. ``add_arguments(parser)`` declares its options, and ``run(options, rest)``
does it and returns the exit code; ``rest`` holds ``--key.sub value`` overrides, for commands with ``OVERRIDES = True``.
What takes time to import is imported in ``run``: ``--help`` and usage errors do not wait for torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import Interrupted
from ._failures import explained


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 some inputs failed, 2 wrong usage or unusable data, 130 interrupted."""
    commands = _commands()
    parser = argparse.ArgumentParser(prog="fcn", description="Fully convolutional networks for semantic segmentation.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version, and exit")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=LazyParser)
    for name, module in commands.items():
        summary, _, more = (module.__doc__ or "").partition("\n")
        subparsers.add_parser(name, help=summary, description=summary, epilog=more, fill=module.add_arguments)
    words, overrides = _overrides_apart(sys.argv[1:] if arguments is None else arguments)
    options, rest = parser.parse_known_args(words)
    rest += overrides
    command = commands[options.command]
    if rest and not getattr(command, "OVERRIDES", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments is None:  # the program itself
        _warn_in_a_line(options.command)
    with _terminated_as_interrupted():
        try:
            return int(command.run(options, rest))
        except (Interrupted, KeyboardInterrupt) as stop:
            if arguments is None:  # the program ends: another Ctrl-C shall not end it in another way
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
            if isinstance(stop, KeyboardInterrupt):  # else it was told what is kept
                print(f"fcn {options.command}: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # as of 'fcn info vgg16 | head -1'
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if os.environ.get("FCN_TRACEBACK"):
                raise
            print(f"fcn {options.command}: {explained(error)}", file=sys.stderr)
            return 2


class Version(argparse.Action):
    """Reads the version when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from fcn_kernels import __version__

        print(f"fcn {__version__}")
        parser.exit()


class LazyParser(argparse.ArgumentParser):
    """Declares its arguments when it is asked to parse: only what is chosen is imported."""

    def __init__(self, *, fill: Callable[[argparse.ArgumentParser], None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(args, namespace)


def _overrides_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """``--key.sub value`` and ``--key.sub=value``, apart from the rest: a parser that does not know the key would take
    the value for an argument of its own."""
    rest: list[str] = []
    overrides: list[str] = []
    value_of_before = False
    for word in words:
        is_key = re.match(r"--\w+\.", word) is not None
        (overrides if is_key or (value_of_before and not word.startswith("--")) else rest).append(word)
        value_of_before = is_key and "=" not in word
    return rest, overrides


def _commands() -> dict[str, ModuleType]:
    names = [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def _warn_in_a_line(command: str) -> None:
    """This program's warnings as its other lines; those of libraries as ever."""
    usual = warnings.showwarning

    def show(message: Any, category: Any, filename: str, *rest: Any) -> None:
        if not Path(filename).is_relative_to(Path(__file__).parents[1]):
            usual(message, category, filename, *rest)
            return
        from tqdm import tqdm  # beside a progress bar

        tqdm.write(f"fcn {command}: {message}", file=sys.stderr)

    warnings.showwarning = show  # type: ignore[assignment]


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, as batch systems send it, ends a command as Ctrl-C does: what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, before)
