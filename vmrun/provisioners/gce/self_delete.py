"""The program by which a machine deletes itself, with the service account that is attached to it. Pure."""

from __future__ import annotations

import json

_COMPUTE = "https://compute.googleapis.com"
#: The system's interpreter and its standard library are all that the image need have. It is part of the user data,
#: whose size is limited, so it is short; the dead-man script ends it after a minute and powers off in any case.
_PROGRAM = """\
#!/usr/bin/python3
import json, time
from urllib.request import ProxyHandler, Request, build_opener
call = build_opener(ProxyHandler({{}})).open
def ask(path):
    url = "http://metadata.google.internal/computeMetadata/v1/" + path
    return call(Request(url, headers={{"Metadata-Flavor": "Google"}}), timeout=5).read().decode()
for pause in (1, 2, 4, 8, 0):
    try:
        token = json.loads(ask("instance/service-accounts/default/token"))["access_token"]
        project, name, zone = map(ask, ("project/project-id", "instance/name", "instance/zone"))
        zone = zone.rsplit("/", 1)[1]
        url = {compute} + f"/compute/v1/projects/{{project}}/zones/{{zone}}/instances/{{name}}"
        call(Request(url, method="DELETE", headers={{"Authorization": "Bearer " + token}}), timeout=20)
        break
    except (OSError, ValueError, KeyError, IndexError) as error:
        why = error
        time.sleep(pause)
else:
    raise SystemExit(f"cannot delete this machine: {{why}}")
"""


def program(endpoint: str = "") -> str:
    """The program; `endpoint` is the address of the API, "" for the real one."""
    return _PROGRAM.format(compute=json.dumps(endpoint or _COMPUTE))
