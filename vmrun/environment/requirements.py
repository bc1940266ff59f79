"""What a job wants installed, from all places that may say so, as one value. Pure: files are read by the caller."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vmrun.core.codec import canonical, sha256
from vmrun.core.errors import UsageError

#: Requirements of one job, and files that include each other.
REQUIREMENTS_MAX = 5000
_NESTING_MAX = 10
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(.*)", re.DOTALL)
_INDEX_OPTION = re.compile(r"(-i|--index-url|--extra-index-url|-f|--find-links)(?:\s+|=)(\S+)")
_LONG = {"-i": "--index-url", "-f": "--find-links"}
_PLAIN_OPTION = re.compile(r"--no-index|--pre|--prefer-binary|--(?:only|no)-binary(?:\s+|=)[\w:.,-]+")
_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s+|=)?(\S.*)")
_LOCAL = re.compile(r"\.{0,2}/|~|file:|[\w.-]+/|.*\.(?:whl|tar\.gz|zip)$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://[^/\s@]+@")


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """An environment as it was asked for."""

    #: Python `major.minor`.
    python: str
    #: PEP 508, sorted, each once.
    requirements: tuple[str, ...] = ()
    #: Options as they stand in a requirements file, such as `--extra-index-url https://…`; in order.
    options: tuple[str, ...] = ()
    #: Whether `requirements` are a lock already: every one of them pinned, with hashes.
    locked: bool = False

    @property
    def id(self) -> str:
        """The same for everybody who asks for the same."""
        return sha256(canonical([self.python, self.requirements, self.options, self.locked]))[:32]

    def __bool__(self) -> bool:
        """Whether anything is to be installed."""
        return bool(self.requirements)


@dataclass(frozen=True, slots=True)
class RequirementsFile:
    """What a requirements file says, with the files that it includes."""

    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def environment_spec(
    python: str,
    dependencies: Iterable[str] = (),
    packages: Iterable[str] = (),
    file: RequirementsFile | None = None,
) -> EnvironmentSpec:
    """The one environment of a job: the script's `dependencies`, `--with` packages, a requirements file.

    vmrun itself is left out: it is always there, in the version that submitted. Raises UsageError for what cannot
    be installed on another machine, and for a locked file beside anything else.
    """
    file = file or RequirementsFile()
    said = [
        *(check_requirement(text, "dependencies") for text in dependencies),
        *(check_requirement(text, "--with") for text in packages),
    ]
    hashed = [text for text in file.requirements if "--hash=" in text]
    if hashed and (len(hashed) < len(file.requirements) or said):
        raise UsageError(
            "a requirements file with hashes must be complete: hashes for every requirement, and nothing beside it",
            hint="write the others into it too and lock it anew, or take the hashes out",
        )
    wanted = {text for text in (*said, *file.requirements) if package_name(text) != "vmrun"}
    if len(wanted) > REQUIREMENTS_MAX:
        raise UsageError(f"more than {REQUIREMENTS_MAX} requirements", hint="name the packages that the job imports")
    options = tuple(dict.fromkeys(file.options))
    return EnvironmentSpec(python, tuple(sorted(wanted, key=lambda text: (text.lower(), text))), options, bool(hashed))


def package_name(requirement: str) -> str:
    """The normalized name of the package that a requirement names."""
    match = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""


def check_requirement(text: str, where: str) -> str:
    """`text`, stripped, if it has the form of a requirement that can be met on any machine; else UsageError."""
    requirement = text.strip()
    if not requirement.isprintable():
        raise UsageError(f"{where}: {requirement[:80]!r} is not one requirement", hint="write one per entry")
    if _CREDENTIALS.search(requirement):
        raise UsageError(
            f"{where}: the address of {package_name(requirement)!r} holds a password",
            hint="what a job asks for is stored with it; use an address without",
        )
    match = _NAME.match(requirement)
    rest = match[2] if match else ""
    reference = rest[1:].strip() if rest.startswith("@") else ""
    if match is None or (not reference and _LOCAL.match(requirement.partition(";")[0].strip())):
        raise UsageError(
            f"{where}: {requirement[:80]!r} does not name a package that another machine can get",
            hint="name a package; local code travels by itself when the script imports it from its own folder",
        )
    if reference and not reference.startswith(("https://", "http://")):
        raise UsageError(
            f"{where}: {requirement[:80]!r} cannot be pinned by a hash",
            hint="give the https address of a wheel or of an archive, such as https://…/archive/<commit>.zip",
        )
    return requirement


def parse_requirements(text: str, name: str, read: Callable[[str], str]) -> RequirementsFile:
    """The requirements and index options in `text`, from the file called `name`.

    `read` gives the text of a file that `-r` names, by its path from where the first file is. Raises UsageError with
    file and line.
    """
    requirements: list[str] = []
    options: list[str] = []
    _collect(text, name, read, (requirements, options), 0)
    return RequirementsFile(tuple(requirements), tuple(options))


def _collect(text: str, name: str, read: Callable[[str], str], into: tuple[list[str], list[str]], depth: int) -> None:
    if depth > _NESTING_MAX:
        raise UsageError(f"{name}: requirements files include each other without end", hint="look at its -r lines")
    requirements, options = into
    folder = posixpath.dirname(name) if depth else ""
    for number, line in _lines(text):
        where = f"{name}, line {number}"
        include = _INCLUDE.fullmatch(line)
        if include:
            path = posixpath.join(folder, include[1])
            _collect(read(path), path, read, into, depth + 1)
        elif line.startswith("-"):
            options.append(_option(line, where))
        else:
            requirements.append(check_requirement(line, where))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and content of each line, continued lines joined, comments and blank lines left out."""
    held, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if held else number
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if bare.endswith("\\"):
            held += bare[:-1].rstrip() + " "
            continue
        whole, held = " ".join((held + bare).split()), ""
        if whole:
            yield start, whole
    if held.strip():
        yield start, " ".join(held.split())


def _option(line: str, where: str) -> str:
    index = _INDEX_OPTION.fullmatch(line)
    if index:
        option, address = _LONG.get(index[1], index[1]), index[2]
        if not address.startswith(("https://", "http://")):
            raise UsageError(
                f"{where}: {address[:80]!r} is no address that a VM can reach", hint="give an https address"
            )
        if _CREDENTIALS.search(address):
            raise UsageError(
                f"{where}: the address of a package index holds a password",
                hint="what a job asks for is stored with it; use an address without",
            )
        return f"{option} {address}"
    if _PLAIN_OPTION.fullmatch(line):
        return line
    raise UsageError(
        f"{where}: {line[:80]!r} is not understood",
        hint="requirements, -r FILE and index options may stand here; editable installs and constraints may not",
    )
