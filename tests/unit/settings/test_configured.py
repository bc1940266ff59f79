"""Which clouds count as configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.core.errors import ConfigError
from vmrun.settings import Settings, load_settings
from vmrun.settings.configured import configured, configured_clouds
from vmrun.settings.reference import reference_text


def settings_of(text: str, folder: Path, **environ: str) -> Settings:
    (folder / "vmrun.toml").write_text(text)
    return load_settings(cwd=folder, environ={"VMRUN_CONFIG_DIR": str(folder / "config"), **environ})


@pytest.mark.parametrize(
    ("text", "environ", "clouds"),
    [
        ("[ec2]\nregions = ['us-east-1']\n", {}, {"ec2"}),
        ("[ec2]\n", {}, set()),
        ("[ssh]\nhosts = ['a@b']\n", {}, set()),
        ("", {"VMRUN_GCE_PROJECT": "p"}, {"gce"}),
        ("", {"AWS_ACCESS_KEY_ID": "AKIA"}, {"ec2"}),
        ("", {"AWS_ACCESS_KEY_ID": ""}, set()),
        ("", {"AWS_PROFILE": "work"}, {"ec2"}),
        ("", {"GOOGLE_APPLICATION_CREDENTIALS": "/k.json"}, {"gce"}),
        ("[ec2]\npublic_ip = false\n", {"IBMCLOUD_API_KEY": "k"}, {"ec2", "ibm"}),
    ],
)
def test_a_cloud_is_configured_by_a_key_of_its_table_or_by_credentials(
    tmp_path: Path, text: str, environ: dict[str, str], clouds: set[str]
) -> None:
    settings = settings_of(text, tmp_path, **environ)
    assert {on for on in ("ec2", "gce", "ibm") if configured(on, settings, environ)} == clouds
    assert not configured("ssh", settings, environ)
    if clouds:
        assert configured_clouds(settings, environ) == tuple(sorted(clouds))
    else:
        with pytest.raises(ConfigError) as caught:
            configured_clouds(settings, environ)
        assert "ec2, gce, ibm" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "moved", "on"),
    [
        (".aws/credentials", "", "ec2"),
        (".config/gcloud/application_default_credentials.json", "", "gce"),
        ("other/credentials", "AWS_SHARED_CREDENTIALS_FILE", "ec2"),
        ("cloudsdk/application_default_credentials.json", "CLOUDSDK_CONFIG", "gce"),
    ],
)
def test_credentials_files_are_found_where_the_tools_of_the_cloud_keep_them(
    tmp_path: Path, file: str, moved: str, on: str
) -> None:
    path = tmp_path / file
    environ = {"HOME": str(tmp_path)}
    if moved:
        environ[moved] = str(path if moved.endswith("FILE") else path.parent)
    settings = settings_of("", tmp_path)
    assert not configured(on, settings, environ)
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert configured_clouds(settings, environ) == (on,)


def test_the_file_that_init_writes_configures_no_cloud(tmp_path: Path) -> None:
    settings = settings_of(reference_text(live=False), tmp_path)
    assert not any(configured(on, settings, {}) for on in ("ec2", "gce", "ibm"))
