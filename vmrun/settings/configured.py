"""Which clouds this person uses: what `--on auto` chooses among, and what `vmrun offers --refresh` asks."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vmrun.core.errors import ConfigError

from . import Settings

_CLOUDS = ("ec2", "gce", "ibm")

#: Variables by which the clouds' own tools are given credentials.
_VARIABLES = {
    "ec2": (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ),
    "gce": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "ibm": ("IBMCLOUD_API_KEY",),
}
#: Files that these tools keep credentials in: variable that moves the file, variable that moves its directory, the
#: directory below the home directory, and the file's name.
_FILES = {
    "ec2": ("AWS_SHARED_CREDENTIALS_FILE", "", ".aws", "credentials"),
    "gce": ("", "CLOUDSDK_CONFIG", ".config/gcloud", "application_default_credentials.json"),
}


#: Variables of the same tools that say where things are, or which of them is meant, and hold no secret.
PLACES = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "CLOUDSDK_CONFIG",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
WORDS = ("AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_REGION", "AWS_ROLE_ARN")
#: Those that are secrets, or say where this process alone may get one.
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "IBMCLOUD_API_KEY",
)


def configured(on: str, settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether `on` is a cloud that is in use here.

    It is when a key of its table is set, in the file or by a variable, or when the credentials of its own tools are
    in sight. Nobody is asked whether they are good.
    """
    sections = {"ec2": settings.ec2, "gce": settings.gce, "ibm": settings.ibm}
    return on in sections and (bool(sections[on].model_fields_set) or has_credentials(on, environ))


def has_credentials(on: str, environ: Mapping[str, str]) -> bool:
    """Whether variables or files with credentials of a cloud are there."""
    if any(environ.get(name) for name in _VARIABLES.get(on, ())):
        return True
    file = _file(on, environ)
    return file != "" and os.path.isfile(file)


def _file(on: str, environ: Mapping[str, str]) -> str:
    if on not in _FILES:
        return ""
    moved, moved_directory, directory, name = _FILES[on]
    if environ.get(moved):
        return environ[moved]
    if environ.get(moved_directory):
        return os.path.join(environ[moved_directory], name)
    home = environ.get("HOME", "")
    return os.path.join(home, directory, name) if home else ""


def configured_clouds(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The clouds that are configured, in alphabetical order. Raises ConfigError if there is none."""
    found = tuple(on for on in _CLOUDS if configured(on, settings, environ))
    if not found:
        raise ConfigError(
            "no cloud is configured",
            hint=f"name one of {', '.join(_CLOUDS)} with --on, or set a key of its table in vmrun.toml",
        )
    return found
