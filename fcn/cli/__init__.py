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
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from ..errors import Interrupted, what_to_install


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 some inputs failed, 2 wrong usage or unusable data, 130 interrupted."""
    commands = _commands()
    parser = argparse.ArgumentParser(prog="fcn", description="Fully convolutional networks for semantic segmentation.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=LazyParser)
    for name, module in commands.items():
        summary, _, more = (module.__doc__ or "").partition("\n")
        subparsers.add_parser(name, help=summary, description=summary, epilog=more, fill=module.add_arguments)
    options, rest = parser.parse_known_args(arguments)
    command = commands[options.command]
    if rest and not getattr(command, "OVERRIDES", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(command.run(options, rest))
    except Interrupted:
        return 130
    except (ValueError, TypeError, OSError) as error:  # ConfigError and DataError are ValueErrors
        if os.environ.get("FCN_TRACEBACK"):
            raise
        print(f"fcn {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"fcn {options.command}: this needs {what_to_install(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fcn {options.command}: interrupted", file=sys.stderr)
        return 130


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


def _commands() -> dict[str, ModuleType]:
    names = [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}
