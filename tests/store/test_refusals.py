"""What the S3 store makes of refusals, silence and broken connections: scripted answers over real HTTP."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.conftest import SECRET_KEY, Script, options
from tests.suites.provisioner import poll_until
from vmrun.core.clock import SystemClock
from vmrun.core.errors import (
    ConfigError,
    KeyExists,
    KeyNotFound,
    StoreAbsent,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    StoreUnsafe,
    VmrunError,
)
from vmrun.core.secret import Secret
from vmrun.store.object import ObjectStore
from vmrun.store.object_clients import Limits
from vmrun.store.opening import open_store
from vmrun.store.probe import probe

#: For servers that answer; a busy machine is no reason to repeat a request.
PATIENT = Limits(connect=60.0, request=60.0, part=60.0, stall=60.0, retries=2, retry=60.0)
#: Short enough to wait for in a test; the connecting is the kernel's, which keeps nobody waiting.
QUICK = Limits(connect=30.0, request=0.4, part=0.4, stall=0.4, retries=1, retry=2.0)
#: Seconds in which those are over on a computer with other things to do: what keeps to no limits takes longer.
OVER = 30.0


def error_body(code: str, message: str = "as scripted") -> bytes:
    return (
        f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>'
        "<Token-0>the-session-token</Token-0></Error>"
    ).encode()


def scripted_store(script: Script, limits: Limits = PATIENT) -> ObjectStore:
    return ObjectStore("s3", "bucket", "", script.options, limits=limits)


def requests_of(store: ObjectStore) -> dict[str, Callable[[], object]]:
    return {
        "create": lambda: store.create("a/b", b"body"),
        "get": lambda: store.get("a/b"),
        "range": lambda: store.get("a/b", 2, 5),
        "replace": lambda: store.replace("a/b", b"body"),
        "list": lambda: list(store.list("a/")),
        "delete": lambda: store.delete("a/b"),
        "write": lambda: store.write("a/b", [b"body"]),
        "large write": lambda: store.write("a/b", [bytes(1 << 20)] * 17),
        "read": lambda: list(store.read("a/b")),
    }


def outcome(request: Callable[[], object]) -> type[VmrunError] | None:
    try:
        request()
    except VmrunError as error:
        refusal = error
    else:
        return None
    assert refusal.hint or isinstance(refusal, KeyExists | KeyNotFound)
    return type(refusal)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (412, "PreconditionFailed", KeyExists),
        (409, "ConditionalRequestConflict", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (429, "TooManyRequests", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (503, "SlowDown", StoreUnavailable),
        (400, "RequestTimeout", StoreUnavailable),
        (501, "NotImplemented", StoreUnsafe),
        (403, "AccessDenied", StoreDenied),
        (404, "NoSuchBucket", StoreAbsent),
        (400, "ExpiredToken", StoreDenied),
    ],
)
def test_a_create_is_sent_once_whatever_is_answered(
    script: Script, status: int, code: str, expected: type[StoreError]
) -> None:
    script.answer = lambda *_: (status, error_body(code))
    with pytest.raises(expected) as caught:
        scripted_store(script).create("a/b", b"body")
    assert type(caught.value) is expected
    assert script.requests == [("PUT", "/bucket/a/b")]
    assert script.headers[0]["if-none-match"] == "*"


@pytest.mark.parametrize("answer", ["hang up", "hang"])
def test_a_create_without_an_answer_is_sent_once_and_undecided(script: Script, answer: str) -> None:
    script.answer = script.hang if answer == "hang" else lambda *_: None
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        scripted_store(script, QUICK).create("a/b", b"body")
    assert time.monotonic() - begun < OVER
    # Whoever gives up early may do so before the server has read what it was sent.
    assert poll_until(lambda: bool(script.requests), 60.0)
    assert len(script.requests) == 1


def test_all_else_is_repeated_and_then_given_up(script: Script) -> None:
    script.answer = lambda *_: (503, error_body("SlowDown"))
    for name, request in requests_of(scripted_store(script)).items():
        del script.requests[:]
        with pytest.raises(StoreUnavailable, match="HTTP 503 SlowDown: as scripted"):
            request()
        assert len(script.requests) == (1 if name == "create" else 1 + PATIENT.retries), name


def test_a_store_that_recovers_is_not_noticed(script: Script) -> None:
    script.answer = lambda *_: (503, b"") if len(script.requests) % 3 else (200, b"bytes")
    store = scripted_store(script)
    assert store.get("a/b") == b"bytes"
    store.replace("a/b", b"body")
    assert b"".join(store.read("a/b")) == b"bytes"
    store.delete("a/b")
    assert len(script.requests) == 12


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "Unauthorized", StoreDenied),
        (403, "AccessDenied", StoreDenied),
        (403, "SignatureDoesNotMatch", StoreDenied),
        (403, "RequestTimeTooSkewed", StoreDenied),
        (400, "AuthorizationHeaderMalformed", StoreDenied),
        (400, "InvalidToken", StoreDenied),
        (301, "PermanentRedirect", StoreAbsent),
        (404, "NoSuchBucket", StoreAbsent),
        (405, "MethodNotAllowed", StoreError),
        (400, "InvalidRequest", StoreError),
    ],
)
def test_a_refusal_is_final_and_says_what_to_do(
    script: Script, status: int, code: str, expected: type[StoreError]
) -> None:
    script.answer = lambda *_: (status, error_body(code))
    for name, request in requests_of(scripted_store(script)).items():
        del script.requests[:]
        assert outcome(request) is expected, name
        assert len(script.requests) == 1, name


def test_an_absent_object_is_absent_for_reads_only(script: Script) -> None:
    script.answer = lambda *_: (404, error_body("NoSuchKey"))
    outcomes = {name: outcome(request) for name, request in requests_of(scripted_store(script)).items()}
    assert outcomes == {
        "get": KeyNotFound,
        "range": KeyNotFound,
        "read": KeyNotFound,
        "delete": None,
        "create": StoreAbsent,
        "replace": StoreAbsent,
        "write": StoreAbsent,
        "large write": StoreAbsent,
        "list": StoreAbsent,
    }


def test_no_error_repeats_a_secret_of_the_request_or_of_the_reply(script: Script) -> None:
    script.answer = lambda *_: (403, error_body("InvalidToken"))
    told = replace(script.options, session_token=Secret("the-session-token"))
    for request in requests_of(ObjectStore("s3", "bucket", "", told)).values():
        with pytest.raises(StoreDenied) as caught:
            request()
        error = caught.value
        assert error.__suppress_context__
        assert error.__cause__ is None
        assert "the-session-token" not in f"{error} {error.hint}"
        assert SECRET_KEY not in f"{error} {error.hint}"


def test_a_server_that_ignores_ranges_is_unsafe(script: Script) -> None:
    script.answer = lambda *_: (200, b"the whole of it")
    store = scripted_store(script)
    with pytest.raises(StoreUnsafe, match="ignores byte ranges"):
        store.get("a", 2, 5)
    with pytest.raises(StoreUnsafe, match="ignores byte ranges"):
        next(store.read("a", 2))


def test_a_dead_endpoint_is_unavailable_in_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    store = ObjectStore("s3", "bucket", "", options(f"http://127.0.0.1:{port}"))
    for name, request in requests_of(store).items():
        # What a busy computer does meanwhile makes one of them late, and not all
        limit, took = 1 if name == "create" else 15, [float("inf")]
        while min(took) >= limit and len(took) <= 5:
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match="connection refused") as caught:
                request()
            took.append(time.monotonic() - begun)
        assert min(took) < limit, name
        assert "network" in caught.value.hint


def test_a_silent_endpoint_is_unavailable_in_bounded_time(script: Script) -> None:
    script.answer = script.hang
    for name, request in requests_of(scripted_store(script, QUICK)).items():
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            request()
        assert time.monotonic() - begun < OVER, name


def test_a_host_that_is_not_there_is_named(script: Script) -> None:
    store = ObjectStore("s3", "bucket", "", options("http://no-such-host.invalid"), limits=QUICK)
    with pytest.raises(StoreUnavailable, match=r"no-such-host\.invalid"):
        store.get("a")


def test_a_probe_of_a_failing_store_tells_nothing_about_its_safety(script: Script, rng: random.Random) -> None:
    with pytest.raises(StoreUnavailable):
        probe(scripted_store(script), SystemClock(), rng)


def test_anonymous_requests_are_not_signed(script: Script) -> None:
    script.answer = lambda *_: (200, b"")
    for anonymous in (False, True):
        ObjectStore("s3", "bucket", "", replace(script.options, anonymous=anonymous)).get("a")
    assert ["authorization" in headers for headers in script.headers] == [True, False]


def test_given_keys_do_not_mix_with_those_of_the_environment(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENVIRONMENT1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stale")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    script.answer = lambda *_: (200, b"")
    ObjectStore("s3", "bucket", "", script.options).create("a", b"")
    assert script.options.access_key_id in script.headers[0]["authorization"]
    assert "x-amz-security-token" not in script.headers[0]
    assert script.headers[0]["if-none-match"] == "*"


def test_a_session_token_goes_with_its_keys(script: Script) -> None:
    script.answer = lambda *_: (200, b"")
    ObjectStore("s3", "bucket", "", replace(script.options, session_token=Secret("t0ken"))).get("a")
    assert script.headers[0]["x-amz-security-token"] == "t0ken"


# --- TLS ---


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Endpoint of an HTTPS server whose certificate nobody knows, and the file with that certificate."""
    certificate = make_certificate(tmp_path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "5")
            self.send_header("etag", '"0"')
            self.send_header("last-modified", "Tue, 01 Jan 2030 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(b"bytes")

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up at the sight of the certificate is what is tested."""

    with Server(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", str(certificate)
        server.shutdown()
        thread.join()


def make_certificate(directory: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vmrun test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_an_unknown_certificate_is_refused_until_it_is_named(tls: tuple[str, str]) -> None:
    endpoint, certificate = tls
    with pytest.raises(StoreDenied, match="certificate is not trusted") as caught:
        ObjectStore("s3", "bucket", "", options(endpoint), limits=PATIENT).get("a")
    assert "store.ca_file" in caught.value.hint
    assert open_store("s3://bucket", replace(options(endpoint), ca_file=certificate)).get("a") == b"bytes"
    with pytest.raises(ConfigError, match=r"cannot read store\.ca_file"):
        open_store("s3://bucket", replace(options(endpoint), ca_file=certificate + ".gone"))
