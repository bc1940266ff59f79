"""Clients of remote object stores, set up so that every request is bounded and no create is ever sent twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from vmrun.core.errors import ConfigError

from .aws_credentials import s3_access
from .options import StoreOptions

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

    Client = S3Store | GCSStore | AzureStore

_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request may take, in seconds, and how often it is repeated."""

    connect: float = 5.0
    #: One small request, from connecting to the last byte.
    request: float = 30.0
    #: One part of a large upload: 16 MiB, slow lines included.
    part: float = 600.0
    #: Without any byte of a large download.
    stall: float = 30.0
    #: Repetitions of whatever may be repeated.
    retries: int = 4
    #: No repetition of a small request begins later than this after its first attempt.
    retry: float = 15.0


class Clients:
    """One client per kind of request: they differ in their limits."""

    def __init__(self, scheme: str, bucket: str, options: StoreOptions, limits: Limits) -> None:
        self._new = _factory(scheme, bucket, options)
        self._options = _transport(options, limits)
        self._limits = limits

    def once(self) -> Client:
        """For creates: never repeats a request, not even after a broken connection."""
        return self._new({**self._options, "timeout": _seconds(self._limits.request)}, {"max_retries": 0})

    def small(self) -> Client:
        """For requests that may be repeated."""
        return self._new({**self._options, "timeout": _seconds(self._limits.request)}, self._retry(self._limits.retry))

    def upload(self) -> Client:
        """For large writes; a part may take long."""
        return self._new({**self._options, "timeout": _seconds(self._limits.part)}, self._retry(self._limits.part))

    def download(self) -> Client:
        """For large reads: as long as bytes keep coming; the client goes on by itself where a stream broke."""
        timeouts: ClientConfig = {"timeout": _seconds(_DAY), "read_timeout": _seconds(self._limits.stall)}
        return self._new({**self._options, **timeouts}, self._retry(_DAY))

    def _retry(self, within: float) -> RetryConfig:
        return {
            "max_retries": self._limits.retries,
            "retry_timeout": _seconds(within),
            "backoff": {"init_backoff": _seconds(0.1), "max_backoff": _seconds(2.0), "base": 2},
        }


def _seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def _transport(options: StoreOptions, limits: Limits) -> ClientConfig:
    config: ClientConfig = {
        "connect_timeout": _seconds(limits.connect),
        "user_agent": "vmrun",
        "allow_http": options.endpoint.startswith("http://"),
    }
    if options.ca_file:
        try:
            with open(options.ca_file, "rb") as file:
                config["root_certificate"] = file.read()
        except OSError as error:
            raise ConfigError(
                f"cannot read store.ca_file {options.ca_file}: {error.strerror}",
                hint="point it to a PEM file with the certificate",
            ) from error
    return config


def _factory(scheme: str, bucket: str, options: StoreOptions) -> _Factory:
    if options.endpoint and urlsplit(options.endpoint).scheme not in {"http", "https"}:
        raise ConfigError(
            f"store.endpoint {options.endpoint!r} is no address", hint="it is of the form https://HOST[:PORT]"
        )
    return _Factory({"s3": _s3, "gs": _gcs, "az": _azure}[scheme](bucket, options))


class _Factory:
    """Makes clients that differ in nothing but their limits."""

    def __init__(self, made: tuple[type[Client], dict[str, Any]]) -> None:
        self._kind, self._settings = made

    def __call__(self, client_options: ClientConfig, retry_config: RetryConfig) -> Client:
        try:
            return self._kind(**self._settings, client_options=client_options, retry_config=retry_config)
        except (BaseError, ValueError, TypeError) as error:
            raise ConfigError(
                f"the object store cannot be set up: {str(error).splitlines()[0]}", hint="correct the store's settings"
            ) from None


def _s3(bucket: str, options: StoreOptions) -> tuple[type[Client], dict[str, Any]]:
    access = s3_access(options)
    settings: dict[str, Any] = {
        "bucket": bucket,
        "region": access.region or "us-east-1",
        # Environment variables that would weaken these are overruled.
        "conditional_put": "etag",
        "skip_signature": options.anonymous,
        # One request per object: the bulk form is not everywhere.
        "disable_bulk_delete": True,
        "virtual_hosted_style_request": not options.path_style,
    }
    if options.endpoint:
        address = urlsplit(options.endpoint)
        host = address.netloc if options.path_style else f"{bucket}.{address.netloc}"
        settings["aws_endpoint_url_s3"] = f"{address.scheme}://{host}{address.path.rstrip('/')}"
    if access.provider is not None:
        settings["credential_provider"] = access.provider
    return S3Store, settings


def _gcs(bucket: str, options: StoreOptions) -> tuple[type[Client], dict[str, Any]]:
    settings: dict[str, Any] = {"bucket": bucket}
    if options.endpoint:
        settings["base_url"] = options.endpoint
    if options.session_token:
        settings["bearer_token"] = options.session_token.reveal()
    if options.anonymous:
        settings["skip_signature"] = True
    return GCSStore, settings


def _azure(container: str, options: StoreOptions) -> tuple[type[Client], dict[str, Any]]:
    settings: dict[str, Any] = {"container_name": container}
    if options.endpoint:
        settings["endpoint"] = options.endpoint
    if options.access_key_id:
        settings["account_name"] = options.access_key_id
    if options.secret_access_key:
        settings["account_key"] = options.secret_access_key.reveal()
    if options.anonymous:
        settings["skip_signature"] = True
    return AzureStore, settings
