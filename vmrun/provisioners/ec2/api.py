"""The AWS SDK: calls that are bounded in time, answered completely, and fail with CloudErrors. Imported only here."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import boto3
import botocore.config
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from vmrun.core.clock import Clock, Rng, backoff
from vmrun.core.clouds import CloudError, Fault, Scope

from .config import Ec2Config
from .errors import Request, failed, refused

#: Seconds for a connection, and for an answer; RunInstances takes up to ten.
_CONNECT, _READ = 5.0, 30.0
#: How often a call that may be repeated is sent.
ATTEMPTS = 3
_REPEATABLE = (Fault.throttle, Fault.unavailable)
#: Pages of one list; far more than anyone has.
_PAGES = 10_000
#: What EC2 calls the proof that a call with DryRun would have been allowed.
DRY_RUN = "DryRunOperation"


class Aws:
    """One set of credentials, with a client for each service and region, made at first use. Safe from several threads.

    The SDK's own retries are off: a repetition is a decision of the caller, and its pause runs on the clock handed in.
    """

    def __init__(self, config: Ec2Config, clock: Clock, rng: Rng) -> None:
        self._config = config
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}

    def call(
        self, region: str, action: str, about: Request | None = None, *, attempts: int = ATTEMPTS, **parameters: Any
    ) -> dict[str, Any]:
        """The answer to one call, `action` being `ec2:RunInstances`. Repeated while AWS is busy or does not answer."""
        request = about or Request(action, region)
        for attempt in range(attempts - 1):
            try:
                return self._once(request, parameters)
            except CloudError as error:
                if error.fault not in _REPEATABLE:
                    raise
            self._clock.sleep(backoff(attempt, self._rng, base=0.5, cap=5.0))
        return self._once(request, parameters)

    def pages(self, region: str, action: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
        """All items of a list, from all its pages, or CloudError."""
        found: list[dict[str, Any]] = []
        following: dict[str, Any] = {}
        for _ in range(_PAGES):
            answer = self.call(region, action, **parameters, **following)
            found += answer.get(key, [])
            token = answer.get("NextToken")
            if not token:
                return found
            if token == following.get("NextToken"):
                break
            following = {"NextToken": token}
        raise CloudError(
            f"{action} in {region}: the list has no end", fault=Fault.unavailable, scope=Scope.region, hint="try again"
        )

    def allowed(self, region: str, action: str, **parameters: Any) -> CloudError | None:
        """None if the call would be allowed, else what AWS said to its rehearsal; nothing is done."""
        try:
            self.call(region, action, DryRun=True, **parameters)
        except CloudError as error:
            return None if error.cloud_code == DRY_RUN else error
        return None

    def _once(self, request: Request, parameters: Mapping[str, Any]) -> dict[str, Any]:
        service, _, operation = request.action.partition(":")
        try:
            client = self._client(service, request.region)
            answer: dict[str, Any] = getattr(client, xform_name(operation))(**parameters)
        except ClientError as error:
            said = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
            raise refused(request, said.get("Code", ""), said.get("Message", ""), status) from error
        except (BotoCoreError, ResponseParserError, ValueError) as error:
            # ValueError: an endpoint or a region of which the SDK can make no address.
            raise failed(request, type(error).__name__, str(error)) from error
        return answer

    def _client(self, service: str, region: str) -> Any:
        with self._lock:
            if self._session is None:
                self._session = boto3.session.Session(profile_name=self._config.profile or None)
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.client(
                    _SERVICES.get(service, service),
                    region_name=region,
                    endpoint_url=self._config.endpoint or None,
                    config=_CLIENT,
                )
            return self._clients[service, region]


#: Where the SDK calls a service by another name than the policies of IAM do.
_SERVICES = {"servicequotas": "service-quotas"}
_CLIENT = botocore.config.Config(
    connect_timeout=_CONNECT,
    read_timeout=_READ,
    retries={"total_max_attempts": 1},
    user_agent_extra="vmrun",
    max_pool_connections=16,
)
