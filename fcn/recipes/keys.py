"""The keys of a recipe, described: from the docstrings that document them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from .config import Recipe


class Key(NamedTuple):
    """One of them: ``name`` as it is overridden, and its ``default``, or ``required``."""

    name: str
    default: str
    choices: str
    description: str


def keys() -> Iterator[Key]:
    """Every key, in the order of the recipe."""
    yield from _keys_of(Recipe, "")


def _keys_of(section: Any, prefix: str) -> Iterator[Key]:
    hints, described = typing.get_type_hints(section), descriptions(section)
    for field in dataclasses.fields(section):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _keys_of(hint, f"{prefix}{field.name}.")
        else:
            yield Key(prefix + field.name, _default(field), _choices(hint), described.get(field.name, ""))


def descriptions(section: Any) -> dict[str, str]:
    """By key, what the docstring of a section says in its lines ``key: ...`` and ``key, key: ...``."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    known = {field.name for field in dataclasses.fields(section)}
    for line in inspect.cleandoc(section.__doc__ or "").splitlines():
        start = re.match(r"([a-z_]+(?:, [a-z_]+)*): (.*)", line)
        if start and set(start[1].split(", ")) <= known:
            names, line = start[1].split(", "), start[2]
        elif not line.startswith(" "):
            names = []
        for name in names:
            found.setdefault(name, []).append(line.strip())
    return {name: " ".join(lines).replace("``", "") for name, lines in found.items()}


def _default(field: dataclasses.Field[Any]) -> str:
    """As it is written in a recipe."""
    if field.default_factory is not dataclasses.MISSING:
        return json.dumps(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else json.dumps(field.default).strip('"') or '""'


def _choices(hint: Any) -> str:
    """A type as people write its values."""
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    parts = typing.get_args(hint)
    if type(None) in parts:
        return " or ".join(["null", *(_choices(part) for part in parts if part is not type(None))])
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if typing.get_origin(hint) in (list, tuple):
        return f"{_choices(parts[0])}s in brackets"
    if typing.get_origin(hint) is dict:
        return "names with values in braces"
    return " or ".join(_choices(part) for part in parts) if parts else names.get(hint, str(hint))
