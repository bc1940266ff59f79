"""The filter expressions of the list methods: what the API documents, and not a word more."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]


class BadFilter(Exception):
    """The expression is not one; the message says where."""


_TOKEN = re.compile(
    r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<op>!=|<=|>=|=|<|>|:)|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[^\s()=!<>:"']+))"""
)
_FIELD = re.compile(r"[a-zA-Z][\w-]*(\.[\w-]+)*")
#: The whole of one comparison with a regular expression, whose literal may hold anything.
_REGEX = re.compile(r"\s*(?P<field>[a-zA-Z][\w.-]*)\s+(?P<op>eq|ne)\s+(?P<literal>\S.*?)\s*")
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def parse(text: str) -> Test:
    """Whether a resource passes. Raises BadFilter for what the API would not take, or this does not know."""
    if not text.strip():
        return lambda _: True
    if found := _regexes(text):
        return found
    return _Parser(text).all()


# --- regular expressions ---


def _regexes(text: str) -> Test | None:
    """`field eq literal`, alone or several in parentheses; None if that is not what it is."""
    whole = text.strip()
    groups = re.findall(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)", whole) if whole.startswith("(") else [whole]
    matches = [_REGEX.fullmatch(group) for group in groups]
    if not any(matches):
        return None
    if not all(matches):
        raise BadFilter("regular expressions cannot be mixed with other comparisons")
    rest = re.sub(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)", "", whole) if whole.startswith("(") else ""
    if rest.strip():
        raise BadFilter(f"cannot be combined with regular expressions: {rest.strip()!r}")
    found = [match for match in matches if match]
    if len({match["field"] for match in found}) > 1:
        raise BadFilter("regular expressions cannot combine constraints on multiple fields")
    tests = [_regex(match["field"], match["op"], match["literal"]) for match in found]
    return lambda resource: all(test(resource) for test in tests)


def _regex(field: str, op: str, literal: str) -> Test:
    if literal[0] in "\"'":
        if len(literal) < 2 or literal[-1] != literal[0]:
            raise BadFilter(f"an open quote: {literal}")
        literal = literal[1:-1]
    try:
        pattern = re.compile(literal)
    except re.error as error:
        raise BadFilter(f"not a regular expression: {literal!r}: {error}") from error

    def test(resource: Mapping[str, Any]) -> bool:
        value = _value(resource, field)
        return (value is not None and pattern.fullmatch(_text(value)) is not None) == (op == "eq")

    return test


# --- comparisons ---


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """`OR` binds closer than `AND`, and comparisons side by side are an `AND`, as AIP-160 has it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0

    def all(self) -> Test:
        test = self._and()
        if self._at < len(self._tokens):
            raise self._wrong("unexpected")
        return test

    def _and(self) -> Test:
        tests = [self._or()]
        while (token := self._peek()) and token.kind != "close":
            if token.kind == "word" and token.text == "AND":
                self._at += 1
            tests.append(self._or())
        return tests[0] if len(tests) == 1 else lambda resource: all(test(resource) for test in tests)

    def _or(self) -> Test:
        tests = [self._one()]
        while (token := self._peek()) and token.kind == "word" and token.text == "OR":
            self._at += 1
            tests.append(self._one())
        return _any(tests)

    def _one(self) -> Test:
        token = self._next("a comparison")
        if token.kind == "word" and token.text == "NOT":
            test = self._one()
            return lambda resource: not test(resource)
        if token.kind == "open":
            test = self._and()
            if self._next("')'").kind != "close":
                raise self._wrong("no ')'")
            return test
        if token.kind != "word" or not _FIELD.fullmatch(token.text) or token.text in ("AND", "OR"):
            raise BadFilter(f"not a field's name: {token.text!r} in {self._text!r}")
        return self._comparison(token.text)

    def _comparison(self, field: str) -> Test:
        op = self._next("an operator")
        if op.kind != "op":
            raise BadFilter(f"not an operator: {op.text!r} in {self._text!r}")
        value = self._next("a value")
        if value.kind not in ("word", "text"):
            raise BadFilter(f"not a value: {value.text!r} in {self._text!r}")
        if value.kind == "word" and value.text in ("AND", "OR", "NOT"):
            raise BadFilter(f"not a value: {value.text!r} in {self._text!r}")
        literal = re.sub(r"\\(.)", r"\1", value.text[1:-1]) if value.kind == "text" else value.text
        return _comparison(field, op.text, literal, quoted=value.kind == "text")

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            raise BadFilter(f"{wanted} is missing at the end of {self._text!r}")
        self._at += 1
        return token

    def _wrong(self, what: str) -> BadFilter:
        return BadFilter(f"{what}: {self._text!r}")


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadFilter(f"cannot be read from {text[at:]!r}")
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], at))
        at = match.end()
    return found


@dataclass(frozen=True)
class _Equals:
    """Whether a field has one of some values."""

    field: str
    values: frozenset[str]

    def __call__(self, resource: Mapping[str, Any]) -> bool:
        value = _value(resource, self.field)
        return value is not None and _text(value) in self.values


def _any(tests: list[Test]) -> Test:
    """Long lists of names for one field are common, and every resource is asked: they are one look, not many."""
    equals = [test for test in tests if isinstance(test, _Equals)]
    if len(equals) == len(tests) and len({test.field for test in equals}) == 1:
        return _Equals(equals[0].field, frozenset().union(*(test.values for test in equals)))
    return lambda resource: any(test(resource) for test in tests)


def _comparison(field: str, op: str, literal: str, *, quoted: bool) -> Test:
    if op == ":":
        return _has(field, literal, quoted=quoted)
    if "*" in literal and not quoted:
        raise BadFilter(f"'*' is not known with {op!r}: {field}{op}{literal}")
    if op == "=":
        return _Equals(field, frozenset({literal}))

    def test(resource: Mapping[str, Any]) -> bool:
        value = _value(resource, field)
        if op == "!=":
            return value is None or _text(value) != literal
        if value is None:
            return False
        if isinstance(value, str):
            return _ORDER[op](value, literal)
        try:
            return _ORDER[op](float(value), float(literal))
        except ValueError:
            return False

    return test


def _has(field: str, literal: str, *, quoted: bool) -> Test:
    """`:` finds a part of a text, `:*` whether there is a value, `:text*` how it starts."""
    starts = literal.endswith("*") and not quoted
    if "*" in literal.removesuffix("*") and not quoted:
        raise BadFilter(f"'*' may stand only at the end: {field}:{literal}")

    def test(resource: Mapping[str, Any]) -> bool:
        value = _value(resource, field)
        if value is None:
            return False
        if starts:
            return _text(value).startswith(literal[:-1])
        return literal in value if isinstance(value, str) else _text(value) == literal

    return test


def _value(resource: Mapping[str, Any], field: str) -> Any:
    at: Any = resource
    for name in field.split("."):
        if not isinstance(at, Mapping):
            return None
        at = at.get(name)
    return at


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
