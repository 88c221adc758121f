"""YAML files that are small and grow without bound when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from ..errors import ConfigError

MOST_NODES = 100_000
"""Values of a recipe, with each alias (``*name``) counted as all that it stands for."""


def check_expansion(path: Path) -> None:
    """Raises ``ConfigError`` for a file whose aliases or nesting would fill memory or the stack."""
    try:
        root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
        too_large = root is not None and _expanded(root, {}) > MOST_NODES
    except RecursionError:  # nested, or an alias within what it stands for
        raise ConfigError(f"{path}: its values are nested too deeply for a recipe") from None
    except yaml.YAMLError:
        return  # whoever reads it says what is wrong
    if too_large:
        raise ConfigError(f"{path}: its aliases stand for more than {MOST_NODES} values; this is no recipe")


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values ``node`` stands for."""
    if id(node) not in known:
        known[id(node)] = 1 + sum(_expanded(child, known) for child in _children(node))
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from (key, value)
