"""Where settings come from, which win, and what is said of each mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmrun.core.errors import ConfigError, UsageError, VmrunError
from vmrun.core.units import parse_duration
from vmrun.settings import Settings, cache_dir, config_dir, load_settings, state_dir
from vmrun.settings.models import SECTIONS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "vmrun.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(folder: Path, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    environ = {"VMRUN_CONFIG_DIR": str(folder / "config"), **(environ or {})}
    return load_settings(
        {key.replace("__", "."): value for key, value in overrides.items()}, environ=environ, cwd=folder
    )


def refused(
    folder: Path, text: str | bytes = "", environ: dict[str, str] | None = None, **overrides: Any
) -> ConfigError:
    if text:
        written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(folder, environ, **overrides)
    error = caught.value
    assert error.exit_code == 2
    assert error.hint
    assert "\n" not in error.message
    return error


# --- where they come from ---


def test_no_file_is_needed(folder, isolated) -> None:
    settings = load(folder)
    assert settings.source == ()
    assert settings.defaults.on == "local"
    assert settings.defaults.max_lifetime == 86400.0
    assert settings.store.url == f"file://{isolated}/.local/share/vmrun/store"
    assert list(folder.iterdir()) == [], "nothing is created"


def test_the_file_here_counts_and_else_the_one_in_the_configuration_directory(folder) -> None:
    (folder / "config").mkdir()
    written(folder / "config", "[defaults]\ncpus = 1\n")
    assert load(folder).defaults.cpus == 1
    written(folder, "[defaults]\non = 'docker'\n")
    settings = load(folder)
    assert (settings.defaults.on, settings.defaults.cpus) == ("docker", 0)
    assert settings.source == (folder / "vmrun.toml",)


def test_later_wins(folder) -> None:
    written(folder, '[defaults]\ncpus = 1\nretries = 1\nworkers = 1\n[store]\nurl = "/one"\n')
    environ = {"VMRUN_DEFAULTS_RETRIES": "2", "VMRUN_DEFAULTS_WORKERS": "2", "VMRUN_STORE": "/two"}
    settings = load(folder, environ, defaults__workers=3)
    assert (settings.defaults.cpus, settings.defaults.retries, settings.defaults.workers) == (1, 2, 3)
    assert settings.store.url == "file:///two"


def test_values_of_the_environment_have_the_type_of_their_key(folder) -> None:
    settings = load(
        folder,
        {
            "VMRUN_STORE_FSYNC": "no",
            "VMRUN_STORE_ENDPOINT": "http://127.0.0.1:9000",
            "VMRUN_STORE_SECRET_ACCESS_KEY": "123",
            "VMRUN_DEFAULTS_MEMORY": "16GiB",
            "VMRUN_DEFAULTS_PYTHON": "3.12",
            "VMRUN_LOCAL_HEARTBEAT": "0.5",
            "VMRUN_ENVIRONMENT_EXTRA_INDEX_URLS": "https://a/simple, https://b/simple",
            "VMRUN_DEFAULTS_ARCH": "",
        },
    )
    assert settings.store.fsync is False
    assert settings.store.endpoint == "http://127.0.0.1:9000"
    assert settings.store.secret_access_key.reveal() == "123"
    assert settings.defaults.memory == 16 * 2**30
    assert settings.defaults.python == "3.12"
    assert settings.local.heartbeat == 0.5
    assert settings.environment.extra_index_urls == ("https://a/simple", "https://b/simple")


def test_vmruns_own_variables_are_no_settings(folder) -> None:
    load(
        folder, {"VMRUN_JOB": "x", "VMRUN_TASK": "1", "VMRUN_OUTPUT": "/o", "VMRUN_DEBUG": "1", "VMRUN_TEST_SEED": "1"}
    )


def test_the_exact_name_of_the_stores_url_wins_over_the_short_one(folder) -> None:
    assert load(folder, {"VMRUN_STORE_URL": "/a", "VMRUN_STORE": "/b"}).store.url == "file:///a"
    assert load(folder, {"VMRUN_STORE": "/b", "VMRUN_STORE_URL": "/a"}).store.url == "file:///a"


@pytest.mark.parametrize("kind", [config_dir, state_dir, cache_dir])
def test_directories(kind, isolated, folder) -> None:
    name = f"VMRUN_{kind.__name__.upper()}"
    assert kind({}).is_relative_to(isolated)
    assert kind({name: "~/x"}) == isolated / "x"
    assert kind({name: str(folder)}) == folder
    assert kind({name: "relative"}) == Path.cwd() / "relative"


# --- the store, paths ---


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("file:///data", "file:///data"),
        ("/data/store", "file:///data/store"),
        ("~/store", "file://HOME/store"),
        ("store", "file://FOLDER/store"),
        ("../store", "file://PARENT/store"),
        ("  ", "file://HOME/.local/share/vmrun/store"),
    ],
)
def test_store_url(folder, isolated, url, result) -> None:
    written(folder, f'[store]\nurl = "{url}"\n')
    for name, path in (("HOME", isolated), ("FOLDER", folder), ("PARENT", folder.parent)):
        result = result.replace(name, str(path))
    assert load(folder).store.url == result


@pytest.mark.parametrize("url", ["file://relative", "://x", "s3://", "a b://c"])
def test_bad_store_url(folder, url) -> None:
    assert "store.url: " in refused(folder, environ={"VMRUN_STORE": url}).message


def test_files_are_found_from_the_file_that_names_them(folder) -> None:
    (folder / "ca.pem").write_text("")
    written(folder, '[store]\nca_file = "ca.pem"\n')
    assert load(folder).store.ca_file == str(folder / "ca.pem")
    error = refused(folder, '\n[environment]\nca_file = "none.pem"\n')
    assert error.message.startswith(
        f"{folder}/vmrun.toml, line 3: environment.ca_file: there is no file {folder}/none.pem"
    )


# --- times by driver ---


def test_a_drivers_times_are_laid_over_the_common_ones(folder) -> None:
    written(folder, '[vm]\nlease = "40m"\nheartbeat = "20s"\n[docker]\nlease = "5m"\n')
    settings = load(folder)
    assert settings.section_for("ec2").lease == 2400.0
    docker, local = settings.section_for("docker"), settings.section_for("local")
    assert (docker.lease, docker.heartbeat, docker.boot_grace, docker.dead_after) == (300.0, 20.0, 300.0, 120.0)
    assert (local.lease, local.heartbeat, local.boot_grace, local.deadman_poll) == (120.0, 1.0, 60.0, 1.0)
    assert settings.driver_table("docker")["lease"] == 300.0
    assert "heartbeat" not in settings.driver_table("docker")
    assert settings.driver_table("no-driver") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[vm]\nheartbeat = "2m"\n', "vm.dead_after (2m 00s) is less than twice vm.heartbeat (2m 00s)"),
        ('[docker]\nlease = "20s"\n', "line 2: docker.lease (20s) is less than twice vm.heartbeat (15s)"),
        ('[local]\nheartbeat = "90s"\n', "line 2: local.lease (2m 00s) is less than twice local.heartbeat (1m 30s)"),
    ],
)
def test_times_that_do_not_fit_together(folder, text, message) -> None:
    assert message in refused(folder, text).message


# --- secrets ---


def test_no_secret_is_in_a_repr_or_a_message(folder) -> None:
    written(
        folder,
        '[store]\nsecret_access_key = "hunter2"\naccess_key_id = "hunter3"\nsession_token = "hunter4"\n'
        '[environment]\nindex_url = "https://me:hunter5@host/simple"\nextra_index_urls = ["https://hunter6@host"]\n',
    )
    settings = load(folder)
    assert "hunter" not in repr(settings) + str(settings.store) + str(settings.driver_table("local"))
    assert settings.store.access_key_id.reveal() == "hunter3"
    for text in ('[store]\nsecret_access_key = ["hunter2"]\n', '[environment]\nindex_url = ["hunter5"]\n'):
        error = refused(folder, text)
        assert "hunter" not in error.message + error.hint


# --- mistakes ---

MISTAKES = [
    ("[stor]\nurl = 'x'\n", "line 1: unknown table stor", "did you mean store?"),
    ("[stor]\n", "line 1: unknown table stor", "did you mean store?"),
    ("[store]\n\nulr = 'x'\n", "line 3: unknown key store.ulr", "did you mean store.url?"),
    ("[store]\nxyzzy = 1\n", "line 2: unknown key store.xyzzy", "known: access_key_id, ca_file"),
    ("store.ulr = 'x'\n", "line 1: unknown key store.ulr", "store.url"),
    ("[vm]\nlease = '1h'\n[store]\nlease = '1h'\n", "line 4: unknown key store.lease", ""),
    ("[store.deep]\nx = 1\n", "line 1: unknown key store.deep", ""),
    ("store = 3\n", "line 1: store stands outside of any table", "[defaults]"),
    ("[[store]]\nurl = 'x'\n", "line 1: store stands outside of any table", ""),
    ("\n[defaults]\ncpus = 'four'\n", "line 3: defaults.cpus: expected a whole number, found 'four'", ""),
    ("[defaults]\ncpus = 1.5\n", "line 2: defaults.cpus: expected a whole number, found 1.5", ""),
    ("[defaults]\ncpus = true\n", "line 2: defaults.cpus: expected a whole number, found true", ""),
    ("[defaults]\ncpus = -1\n", "line 2: defaults.cpus: must be at least 0, found -1", ""),
    ("[defaults]\ncpus = 10000000\n", "line 2: defaults.cpus: must be at most 100000, found 10000000", ""),
    ("[defaults]\non = 3\n", "line 2: defaults.on: expected a text in quotes, found 3", ""),
    ("[defaults]\non = ''\n", "line 2: defaults.on: must be at least this many characters: 1, found ''", ""),
    ('[defaults]\non = "a\\nb"\n', "line 2: defaults.on: has a line break", ""),
    ("[defaults]\nmemory = 'lots'\n", "line 2: defaults.memory: 'lots' is not a size", ""),
    ("[defaults]\nmemory = -5\n", "line 2: defaults.memory: -5 is negative", ""),
    ("[defaults]\nmemory = nan\n", "line 2: defaults.memory: 'nan' is not a size", ""),
    ("[defaults]\nmemory = '9999999PB'\n", "larger than any machine", ""),
    ("[defaults]\narch = 'vax'\n", "line 2: defaults.arch: must be one of x86_64, arm64, any, found 'vax'", ""),
    ("[defaults]\npython = 3.12\n", "line 2: defaults.python: expected a text in quotes, found 3.12", ""),
    ("[defaults]\npython = '2'\n", "line 2: defaults.python: '2' is not a version of Python", ""),
    ("[vm]\nlease = 'soon'\n", "line 2: vm.lease: 'soon' is not a duration", ""),
    ("[vm]\nlease = '-5m'\n", "line 2: vm.lease: '-5m' is not a duration", ""),
    ("[vm]\nlease = nan\n", "line 2: vm.lease: nan is not a duration", ""),
    ("[vm]\nlease = inf\n", "line 2: vm.lease: inf is not a duration", ""),
    ("[vm]\nlease = 0\n", "line 2: vm.lease: must be more than zero, found 0", ""),
    ("[vm]\nlease = '9999d'\n", "line 2: vm.lease: longer than a year", ""),
    (f"[vm]\nlease = 1{'0' * 4000}\n", "line 2: vm.lease: out of range, found a number of more than 40 digits", ""),
    ("[vm]\nlease = 2001-01-01\n", "line 2: vm.lease: expected a duration such as 90s", ""),
    ("[vm]\nlease = ['1m']\n", "line 2: vm.lease: expected a duration such as 90s or 2h30m, found a list", ""),
    ("[local]\ndeadman_poll = '1m'\n", "line 2: local.deadman_poll: must be at most 5", ""),
    ("[store]\nfsync = 'yes'\n", "line 2: store.fsync: expected true or false, found 'yes'", ""),
    ("[environment]\nextra_index_urls = 'x'\n", "expected a list of texts", ""),
    ("[environment]\nextra_index_urls = [1]\n", "expected a text in quotes", ""),
    ("[vm]\nlease = '1h'\nlease = '2h'\n", "line 3: Cannot overwrite a value", "TOML"),
    ("[vm]\n[store]\n[vm]\n", "line 3: Cannot declare ('vm',) twice", "TOML"),
    ("[vm\n", "line 1: ", "TOML"),
    ("[vm]\nlease = 1h\n", "line 2: ", "TOML"),
    ('[vm]\nlease = "1h\n', "line 2: ", "TOML"),
    (b"[vm]\n\xff = 1\n", "line 2: not UTF-8", "UTF-8"),
    ("[vm]\n".encode("utf-16"), "line 1: not UTF-8", "UTF-8"),
    (b"[vm]\nx = '\x00'\n", "line 2: ", "TOML"),
    (b"#" * 1_100_000, "has more than 1048576 bytes", ""),
    ("x = " + "[" * 100_000, "nested too deeply", ""),
]


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_in_the_file_are_told_with_file_line_and_key(folder, text, message, hint) -> None:
    error = refused(folder, text)
    assert message in error.message
    assert error.message.startswith(f"{folder}/vmrun.toml")
    assert hint in error.hint
    assert len(error.message) < 500


def test_a_mark_of_order_at_the_beginning_is_no_mistake(folder) -> None:
    written(folder, b"\xef\xbb\xbf[defaults]\ncpus = 3\n")
    assert load(folder).defaults.cpus == 3


def test_windows_line_ends_are_no_mistake(folder) -> None:
    assert "line 3: " in refused(folder, "[defaults]\r\ncpus = 3\r\nretries = -1\r\n").message


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("VMRUN_STROE", "x", "VMRUN_STROE: vmrun has no such environment variable", "did you mean VMRUN_STORE?"),
        ("VMRUN_XYZZY", "x", "VMRUN_XYZZY: vmrun has no such environment variable", "VMRUN_STORE_ENDPOINT"),
        ("VMRUN_VM_LEASE", "soon", "VMRUN_VM_LEASE: vm.lease: 'soon' is not a duration", ""),
        (
            "VMRUN_DEFAULTS_CPUS",
            "four",
            "VMRUN_DEFAULTS_CPUS: defaults.cpus: expected a whole number, found 'four'",
            "",
        ),
        ("VMRUN_DEFAULTS_CPUS", "9" * 5000, "VMRUN_DEFAULTS_CPUS: defaults.cpus: expected a whole number", ""),
        ("VMRUN_DEFAULTS_CPUS", "²", "VMRUN_DEFAULTS_CPUS: defaults.cpus: expected a whole number", ""),
        ("VMRUN_DEFAULTS_CPUS", "--1", "VMRUN_DEFAULTS_CPUS: defaults.cpus: expected a whole number", ""),
        ("VMRUN_STORE_FSYNC", "maybe", "VMRUN_STORE_FSYNC: store.fsync: expected true or false, found 'maybe'", ""),
        ("VMRUN_STORE", "\udcff", "VMRUN_STORE: store.url: has a line break or another", ""),
    ],
    ids=range(9),
)
def test_mistakes_in_the_environment_are_told_with_the_variable(folder, name, value, message, hint) -> None:
    error = refused(folder, environ={name: value})
    assert error.message.startswith(message)
    assert hint in error.hint


def test_mistakes_of_callers_are_told_with_the_key(folder) -> None:
    assert refused(folder, defaults__cpus=-1).message == "defaults.cpus: must be at least 0, found -1"
    assert "unknown key defaults.cpsu" in refused(folder, defaults__cpsu=1).message
    assert "unknown table default" in refused(folder, default__cpus=1).message
    with pytest.raises(ConfigError, match="unknown"):
        load_settings({"cpus": 1}, cwd=folder)


def test_a_file_that_is_none(folder) -> None:
    (folder / "vmrun.toml").mkdir()
    assert "cannot be read: Is a directory" in refused(folder).message
    (folder / "vmrun.toml").rmdir()
    (folder / "vmrun.toml").symlink_to("nowhere")
    assert "cannot be read: No such file or directory" in refused(folder).message


def test_a_current_directory_that_is_gone(folder, monkeypatch) -> None:
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    with pytest.raises(UsageError, match="does not exist any more"):
        load_settings()


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), "5\u017f", "5m\u017f"])
def test_durations_that_are_none(value) -> None:
    with pytest.raises(UsageError):
        parse_duration(value)


# --- whatever is written ---

KEYS = [(name, key) for name, model in SECTIONS.items() for key in model.model_fields]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.dates()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def outcome(settings_of: Any) -> VmrunError | Settings:
    try:
        return settings_of()
    except VmrunError as error:
        return error


@given(st.sampled_from(KEYS), VALUES)
@example(("vm", "lease"), 10**400)
@example(("vm", "lease"), -(10**400))
@example(("defaults", "memory"), 10**400)
def test_any_value_is_accepted_or_refused_in_one_line(key: tuple[str, str], value: Any) -> None:
    result = outcome(lambda: load_settings({".".join(key): value}, environ={}, cwd=Path("/")))
    if isinstance(result, VmrunError):
        assert isinstance(result, ConfigError)
        assert ".".join(key) in result.message
        assert len(result.message) < 500


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"a = 1\n[a.b]\n")
@example(b"x = 99999999999999999999999999999999999")
@example(b"x = " + b"9" * 5000)
def test_any_file_is_accepted_or_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / "vmrun.toml").write_bytes(text)
    result = outcome(lambda: load_settings(environ={}, cwd=folder))
    if isinstance(result, VmrunError):
        assert result.message.startswith(str(folder))


LINES = st.sampled_from(
    [f"[{name}]" for name in SECTIONS]
    + [f"{key} = {value}" for _, key in KEYS for value in ('"1m"', "3", "true", '["a"]')]
    + ["", "# note", "[nope]", "nope = 1", "store.url = 'x'", "store = {url = 'x'}"]
)


@given(st.lists(LINES, max_size=12))
def test_a_mistake_is_said_to_be_on_a_line_that_there_is(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "lines"
    folder.mkdir(exist_ok=True)
    (folder / "vmrun.toml").write_text("\n".join(lines), encoding="utf-8")
    result = outcome(lambda: load_settings(environ={}, cwd=folder))
    if isinstance(result, VmrunError) and (
        found := re.search(r", line (\d+): (?:unknown key )?(\w+)\.(\w+)", result.message)
    ):
        line = lines[int(found[1]) - 1]
        assert found[3] in line or found[2] in line


@given(st.sampled_from(KEYS), st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30))
def test_any_variable_is_accepted_or_refused(key: tuple[str, str], text: str) -> None:
    name = f"VMRUN_{'_'.join(key)}".upper()
    result = outcome(lambda: load_settings(environ={name: text}, cwd=Path("/")))
    if isinstance(result, VmrunError):
        assert result.message.startswith(f"{name}: ")
