"""The `fields` parameter: the part of an answer that the caller wants."""

from __future__ import annotations

import re
from typing import Any

from .faults import invalid

_Tree = dict[str, "_Tree"]


def select(answer: Any, text: str) -> Any:
    """What `text` names of `answer`, as in `items(name,networkInterfaces/networkIP),nextPageToken`; "": all."""
    if not text:
        return answer
    tokens = re.findall(r"[\w*.-]+|[/(),]", text.replace(" ", ""))
    if "".join(tokens) != text.replace(" ", ""):
        raise invalid("fields", text, "Invalid field selection.")
    tree, rest = _parsed(tokens, text)
    if rest:
        raise invalid("fields", text, "Invalid field selection.")
    return _cut(answer, tree)


def _parsed(tokens: list[str], text: str) -> tuple[_Tree, list[str]]:
    tree: _Tree = {}
    while tokens:
        below, tokens = _one(tree, tokens, text)
        del below
        if not tokens or tokens[0] == ")":
            return tree, tokens
        if tokens[0] != ",":
            raise invalid("fields", text, "Invalid field selection.")
        tokens = tokens[1:]
    return tree, tokens


def _one(tree: _Tree, tokens: list[str], text: str) -> tuple[_Tree, list[str]]:
    if not re.fullmatch(r"[\w*.-]+", tokens[0]):
        raise invalid("fields", text, "Invalid field selection.")
    below = tree.setdefault(tokens[0], {})
    tokens = tokens[1:]
    if tokens and tokens[0] == "/":
        return _one(below, tokens[1:], text)
    if tokens and tokens[0] == "(":
        inner, tokens = _parsed(tokens[1:], text)
        if not tokens:
            raise invalid("fields", text, "Invalid field selection.")
        below.update(inner)
        tokens = tokens[1:]
    return below, tokens


def _cut(value: Any, tree: _Tree) -> Any:
    if not tree:
        return value
    if isinstance(value, list):
        return [_cut(one, tree) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _cut(one, tree.get(name, tree.get("*", {}))) for name, one in value.items() if name in tree or "*" in tree
    }
