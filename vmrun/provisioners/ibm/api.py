"""IBM's VPC API through its SDK: the only module that imports it, at first use. Bounded waits, errors as CloudError."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from vmrun.core.clock import Clock, Rng, backoff
from vmrun.core.clouds import CloudError, Fault

from . import errors
from .config import API_VERSION, IbmConfig

log = logging.getLogger(__name__)

#: Variable with the API key, when the configuration has none.
KEY_VARIABLE = "IBMCLOUD_API_KEY"
#: Seconds to connect, and between two bytes of an answer.
_TIMEOUT = (10.0, 60.0)
#: How often a reading call is sent at most, and seconds for which a server may have it wait.
_TRIES, _WAIT_MAX = 5, 20.0
#: Items on a page; the API's own maximum.
_PAGE = 100
#: IBM's list of what it sells and for how much, and items on a page of it.
_CATALOG, _CATALOG_PAGE = "https://globalcatalog.cloud.ibm.com", 200
#: Pages of one list at most: more than any account has.
_PAGES_MAX = 1000


def check_installed() -> None:
    """ModuleNotFoundError if the SDK is not there; without loading it, which takes two seconds."""
    if importlib.util.find_spec("ibm_vpc") is None:
        raise ModuleNotFoundError("the SDK of IBM VPC is not installed", name="ibm_vpc")


class Api:
    """The VPC API in all regions, with one token for them all; safe from several threads."""

    def __init__(self, config: IbmConfig, clock: Clock, rng: Rng) -> None:
        """Nothing is loaded or sent yet."""
        self._config = config
        self._clock = clock
        self._rng = rng
        self._authenticator: Any = None
        self._clients: dict[str, Any] = {}
        self._services: dict[str, Any] = {}

    def read(self, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a call that changes nothing; sent again while the cloud is busy or does not answer."""
        found: dict[str, Any] = self._again(region, operation, lambda: self._once(region, operation, parameters))
        return found

    def change(self, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a call that changes something: sent once, so that its outcome is never in doubt twice.

        {} for an answer without a body. Raises IbmError; with Fault.unavailable the outcome is unknown.
        """
        self.token()  # so that trouble with IAM is not taken for trouble with this call
        return self._once(region, operation, parameters)

    def pages(self, region: str, operation: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
        """All items of a list, in any number of pages: complete, or IbmError."""
        return [item for page in self._pages(region, operation, parameters) for item in page.get(key) or []]

    def resource_groups(self, name: str) -> list[dict[str, Any]]:
        """The account's resource groups of this name."""
        base = self._config.endpoint or "https://resource-controller.cloud.ibm.com"
        answer = self._again(
            "", "list_resource_groups", lambda: self._plain(base, "/v2/resource_groups", {"name": name})
        )
        return list(answer.get("resources") or [])

    def trusted_profile(self, id: str) -> dict[str, Any]:
        """A trusted profile of IAM."""
        base = self._config.iam_endpoint or "https://iam.cloud.ibm.com"
        return self._look(base, f"/v1/profiles/{quote(id, safe='')}")

    def catalog_entry(self, id: str) -> dict[str, Any]:
        """An entry of the Global Catalog with its metadata; {} if there is none."""
        try:
            return self._look(self._catalog, f"/api/v1/{quote(id, safe='')}", include="metadata")
        except errors.IbmError as error:
            if error.status == 404:
                return {}
            raise

    def catalog_prices(self, plan: str) -> list[dict[str, Any]]:
        """The prices of a plan in all regions; none for a plan without."""
        found: list[dict[str, Any]] = []
        for _ in range(_PAGES_MAX):
            path = f"/api/v1/{quote(plan, safe='')}/pricing/deployment"
            try:
                page = self._look(self._catalog, path, _offset=str(len(found)), _limit=str(_CATALOG_PAGE))
            except errors.IbmError as error:
                if error.status == 404:
                    return found
                raise
            items = page.get("resources") or []
            found += items
            if len(items) < _CATALOG_PAGE:
                return found
        raise errors.no_answer(f"a list of more than {_PAGES_MAX} pages", f"prices of {plan}")

    def token(self) -> str:
        """A token of IAM that is good for some minutes. Raises IbmError."""
        return str(self._again("", "get_token", self._token))

    def _pages(self, region: str, operation: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        start: str | None = None
        for _ in range(_PAGES_MAX):
            page = self.read(region, operation, limit=_PAGE, start=start, **parameters)
            yield page
            href = str((page.get("next") or {}).get("href", ""))
            if not href:
                return
            start = next(iter(parse_qs(urlsplit(href).query).get("start", [])), None)
            if not start:
                raise errors.no_answer("a page names its next one without telling where that starts", operation)
        raise errors.no_answer(f"a list of more than {_PAGES_MAX} pages", operation)

    def _again(self, region: str, operation: str, call: Any) -> Any:
        for attempt in range(_TRIES):
            try:
                return call()
            except errors.IbmError as error:
                if error.fault not in (Fault.unavailable, Fault.throttle) or attempt == _TRIES - 1:
                    raise
                log.info("event=sent-again operation=%s region=%s error=%s", operation, region, error.message)
                asked = min(error.retry_after, _WAIT_MAX)
                self._clock.sleep(asked or backoff(attempt, self._rng, base=0.5, cap=_WAIT_MAX))
        raise AssertionError("the last attempt raises")

    def _token(self) -> str:
        manager = self._iam().token_manager
        try:
            return str(self._guarded("get_token from IAM", manager.get_token))
        except CloudError:
            # The SDK has every other caller wait for a minute once a request for a token failed.
            manager.request_time = 0
            raise

    def _once(self, region: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._send(region, operation, parameters)
        except errors.IbmError as error:
            if error.status != 401:
                raise
        # The token ended before its time. Nothing was done, so the call can be sent with a new one.
        self._iam().token_manager.expire_time = 0
        self.token()
        return self._send(region, operation, parameters)

    def _send(self, region: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        doing = f"{operation} in {region}"
        client = self._client(region)
        try:
            response = self._guarded(doing, lambda: getattr(client, operation)(**parameters))
        except CloudError:
            self._iam().token_manager.request_time = 0
            raise
        result = response.get_result()
        if result is not None and not isinstance(result, dict):
            raise errors.no_answer("its answer was no JSON", doing)
        return result or {}

    @property
    def _catalog(self) -> str:
        return self._config.endpoint or _CATALOG

    def _look(self, base: str, path: str, **parameters: str) -> dict[str, Any]:
        found: dict[str, Any] = self._again("", path, lambda: self._plain(base, path, parameters))
        return found

    def _plain(self, base: str, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        """One GET of an API of which there is no SDK here."""
        if base not in self._services:
            from ibm_cloud_sdk_core import BaseService

            self._services[base] = BaseService(service_url=base, authenticator=self._iam())
            self._services[base].set_http_config({"timeout": _TIMEOUT})
        service = self._services[base]

        def get() -> Any:
            return service.send(service.prepare_request("GET", path, params=parameters))

        result = self._guarded(f"GET {path}", get).get_result()
        return result if isinstance(result, dict) else {}

    @staticmethod
    def _guarded(doing: str, call: Any) -> Any:
        import jwt
        import requests
        from ibm_cloud_sdk_core import ApiException

        try:
            return call()
        except ApiException as error:
            raise errors.from_answer(_answer(error), doing) from error
        except requests.exceptions.RequestException as error:
            raise errors.no_answer(f"{type(error).__name__}: {error}"[:300], doing) from error
        except jwt.PyJWTError as error:
            raise errors.no_answer(f"IAM gave a token that is none: {error}"[:300], doing) from error

    def _iam(self) -> Any:
        if self._authenticator is None:
            from ibm_cloud_sdk_core.authenticators import IAMAuthenticator

            key = self._config.api_key.reveal() or os.environ.get(KEY_VARIABLE, "")
            if not key:
                raise errors.no_credentials("there is no API key for IBM Cloud")
            try:
                self._authenticator = IAMAuthenticator(key, url=self._config.iam_endpoint or None)
            except ValueError as error:
                raise errors.no_credentials("the API key for IBM Cloud has quotes or brackets around it") from error
            self._authenticator.token_manager.http_config = {"timeout": _TIMEOUT}
        return self._authenticator

    def _client(self, region: str) -> Any:
        if region not in self._clients:
            from ibm_vpc import VpcV1

            client = VpcV1(version=API_VERSION, authenticator=self._iam())
            client.set_service_url(self._config.address(region))
            client.set_http_config({"timeout": _TIMEOUT})
            self._clients[region] = client
        return self._clients[region]


def _answer(error: Any) -> errors.Answer:
    """An ApiException as plain values."""
    response = error.http_response
    if response is None:
        return errors.Answer(int(error.status_code), str(error.message))
    try:
        body: object = response.json()
    except ValueError:
        body = response.text
    wait = str(response.headers.get("Retry-After", ""))
    return errors.Answer(int(error.status_code), body, float(wait) if wait.isdigit() else 0.0)
