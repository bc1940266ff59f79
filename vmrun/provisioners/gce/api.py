"""Google's client library: every request bounded in time, its failures as CloudErrors. Nothing else imports it.

Descriptions of the APIs come with the library, so that opening one sends nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import google.auth
import google.auth.credentials
import google.auth.exceptions
import google.oauth2.credentials
import google.oauth2.service_account
import google_auth_httplib2
import googleapiclient.discovery
import googleapiclient.errors
import httplib2

from vmrun.core.clock import Clock, Rng, backoff
from vmrun.core.clouds import CloudError, Fault
from vmrun.core.errors import ConfigError

from . import errors
from .config import GceConfig

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
#: A short-lived token, as `gcloud auth print-access-token` prints it; the variable is gcloud's own.
TOKEN_VARIABLE = "CLOUDSDK_AUTH_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
#: The APIs that are used, and where each is below the endpoint.
_APIS = {
    "compute": ("v1", "compute/v1/"),
    "cloudresourcemanager": ("v1", ""),
    "cloudbilling": ("v1", ""),
}
#: Seconds for one request.
_TIMEOUT = 60.0
#: How often a request that only reads is sent at most.
_READS = 3
#: More pages than any listing that is meant has.
_PAGES_MAX = 10_000
_AGAIN = (Fault.throttle, Fault.unavailable)


class GoogleApi:
    """The APIs of one project. May be used by several threads."""

    def __init__(
        self, config: GceConfig, clock: Clock, rng: Rng, *, connect: Callable[[], httplib2.Http] | None = None
    ) -> None:
        """Nothing is read or sent until the first request. ConfigError for an endpoint that would leak credentials.

        `connect` makes the connection of a thread; else it is made with the configured credentials.
        """
        _check_endpoint(config.endpoint)
        self._config = config
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        self._services: dict[str, Any] = {}
        self._credentials: tuple[google.auth.credentials.Credentials, str] | None = None
        self._connect = connect or self._authorized
        self._local = threading.local()
        self._open: list[httplib2.Http] = []
        weakref.finalize(self, _close, self._open)

    @property
    def project(self) -> str:
        """The project, as configured or as the credentials name it. Raises CloudError, ConfigError."""
        if self._config.project:
            return self._config.project
        project = self._authenticated()[1]
        if not project:
            raise ConfigError(
                "no project is named for Google Cloud",
                hint="set gce.project in vmrun.toml, or run `gcloud config set project PROJECT`",
            )
        return project

    def _known_project(self) -> str:
        """The project as far as it is known without asking anybody; "" if it is not."""
        return self._config.project or (self._credentials[1] if self._credentials is not None else "")

    def read(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a request that changes nothing, again if need be. `method` is as in `compute.instances.get`."""
        attempt = 0
        while True:
            try:
                return self._send(method, parameters, creating=False)
            except CloudError as error:
                attempt += 1
                if error.fault not in _AGAIN or attempt >= _READS:
                    raise
            self._clock.sleep(backoff(attempt, self._rng, base=0.25))

    def write(self, method: str, *, creating: bool = False, **parameters: Any) -> dict[str, Any]:
        """Send a request once. `creating` is for the creation of a machine: see `errors.cloud_error`."""
        return self._send(method, parameters, creating=creating)

    def pages(self, method: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """All pages of a listing."""
        token = ""
        for _ in range(_PAGES_MAX):
            page = self.read(method, **parameters, **({"pageToken": token} if token else {}))
            yield page
            token = str(page.get("nextPageToken") or "")
            if not token:
                return
        raise errors.unreachable(method, f"a listing of more than {_PAGES_MAX} pages")

    def _send(self, method: str, parameters: Mapping[str, Any], *, creating: bool) -> dict[str, Any]:
        api, *path, verb = method.split(".")
        resource = self._service(api)
        for part in path:
            resource = getattr(resource, part)()
        known = dict(parameters)
        if api == "compute":
            known.setdefault("project", self.project)
        request = getattr(resource, verb)(**known)
        doing = ".".join(method.split(".")[1:])
        try:
            # The library's own retries stay off: what is sent again, and when, is decided here.
            answer = request.execute(http=self._http(), num_retries=0)
        except googleapiclient.errors.HttpError as error:
            trouble = errors.read_http(int(error.resp.status), _document(error.content))
            project = str(known.get("project") or self._known_project())
            raise errors.cloud_error(trouble, doing=doing, project=project, creating=creating) from error
        except google.auth.exceptions.TransportError as error:
            raise errors.unreachable(doing, str(error)) from error
        except google.auth.exceptions.GoogleAuthError as error:
            raise errors.unauthenticated(str(error)) from error
        except (httplib2.HttpLib2Error, http.client.HTTPException, OSError, ValueError) as error:
            raise errors.unreachable(doing, str(error) or type(error).__name__) from error
        if not isinstance(answer, dict):
            # A page of something that stands in between; the library hands on what is no JSON as it is.
            raise errors.unreachable(doing, "what came is not an answer of the API")
        return answer

    def _service(self, api: str) -> Any:
        with self._lock:
            if api not in self._services:
                version, path = _APIS[api]
                endpoint = self._config.endpoint
                self._services[api] = googleapiclient.discovery.build(
                    api,
                    version,
                    # Each request brings the transport of its thread; this one is never used.
                    http=httplib2.Http(timeout=_TIMEOUT),
                    static_discovery=True,
                    client_options={"api_endpoint": f"{endpoint}/{path}"} if endpoint else None,
                )
            return self._services[api]

    def _http(self) -> Any:
        """The connection of the calling thread: httplib2 is not safe for several."""
        if not hasattr(self._local, "http"):
            self._local.http = self._connect()
            self._open.append(self._local.http)
        return self._local.http

    def _authorized(self) -> Any:
        credentials, _ = self._authenticated()
        return google_auth_httplib2.AuthorizedHttp(credentials, http=httplib2.Http(timeout=_TIMEOUT))

    def _authenticated(self) -> tuple[google.auth.credentials.Credentials, str]:
        with self._lock:
            if self._credentials is None:
                self._credentials = _find_credentials(self._config)
            return self._credentials


def _close(connections: list[httplib2.Http]) -> None:
    """End the connections that httplib2 would keep open for ever."""
    while connections:
        connections.pop().close()


def _find_credentials(config: GceConfig) -> tuple[google.auth.credentials.Credentials, str]:
    """The credentials and the project that they name: the key file; a token; none for a local server; the default."""
    if config.credentials_file:
        return _from_file(config.credentials_file)
    token = os.environ.get(TOKEN_VARIABLE, "")
    project = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    if token:
        return google.oauth2.credentials.Credentials(token), project  # type: ignore[no-untyped-call]
    if config.endpoint and _is_local(config.endpoint):
        return google.auth.credentials.AnonymousCredentials(), project  # type: ignore[no-untyped-call]
    try:
        credentials, found = google.auth.default(scopes=_SCOPES)
    except google.auth.exceptions.GoogleAuthError as error:
        raise errors.unauthenticated(str(error).partition("\n")[0]) from error
    return credentials, found or ""


def _from_file(path: str) -> tuple[google.auth.credentials.Credentials, str]:
    try:
        kind = google.oauth2.service_account.Credentials
        found = kind.from_service_account_file(path, scopes=_SCOPES)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, google.auth.exceptions.GoogleAuthError) as error:
        raise errors.unauthenticated(
            f"{path} cannot be used: {error}", hint="gce.credentials_file is the JSON key of a service account"
        ) from error
    return found, str(found.project_id or "")


def _check_endpoint(endpoint: str) -> None:
    """Refuse an address that is none, or to which a token would travel in clear."""
    if not endpoint:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"gce.endpoint is {endpoint!r}", hint="an address as http://127.0.0.1:8080")
    if parts.scheme == "http" and not _is_local(endpoint):
        raise ConfigError("gce.endpoint is not encrypted and not on this computer", hint="use an https address")


def _is_local(endpoint: str) -> bool:
    """Whether the address is one of this computer or of its private networks, as Docker's bridge."""
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or (address.is_private and not address.is_unspecified)


def _document(content: bytes | str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
