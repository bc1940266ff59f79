"""The agent's front door on a VM: `python3 -I main.py ARGUMENTS`, from the directory where the artefact was unpacked.

Nothing of the machine's own packages is seen, whatever flags the interpreter was started with: only the standard
library, `lib/` (compiled packages, made for one version of Python and one processor) and `app/` (vmrun). With
`--version` it says what it is; with `--check` it imports all that the agent may ever import, tries its signatures,
and says what it found.
Its syntax is old on purpose: an older Python, too, shall be able to say that it is too old.
"""

import json
import os
import platform
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES_OF_THE_MACHINE = ("site-packages", "dist-packages")


def main(argv: "list[str]") -> int:
    """Become the agent; 2 when this is not the machine that the artefact was made for."""
    with open(os.path.join(HERE, "target.json")) as file:
        target = json.load(file)
    if argv == ["--version"]:
        sys.stdout.write("vmrun {version} for Python {python} on {arch}\n".format(**target))
        return 0
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    arch = platform.machine().replace("aarch64", "arm64").replace("AMD64", "x86_64")
    if (python, arch) != (target["python"], target["arch"]):
        wanted = "Python {python} on {arch}".format(**target)
        sys.stderr.write(f"this agent is for {wanted}; this is Python {python} on {arch}\n")
        return 2
    if not (sys.flags.isolated and sys.flags.no_site):
        # Packages of the machine may run code of theirs at every start (`.pth` files): start again without.
        os.execv(sys.executable, [sys.executable, "-I", "-S", os.path.join(HERE, "main.py"), *argv])  # noqa: S606 - the very same program
    foreign = [path for path in sys.path if os.path.basename(path.rstrip(os.sep)) in PACKAGES_OF_THE_MACHINE]
    others = [path for path in sys.path if path not in foreign and os.path.abspath(path or ".") != HERE]
    sys.path[:] = [os.path.join(HERE, "app"), os.path.join(HERE, "lib"), *others]
    if argv == ["--check"]:
        return check()
    from vmrun.agent.__main__ import main as agent

    return agent(argv)


def check() -> int:
    """Import everything the agent may import; print where each package came from, as JSON."""
    import importlib
    import pkgutil

    import vmrun.agent
    import vmrun.crypto
    import vmrun.store

    names = ["vmrun.bundle.pack", "vmrun.environment.install", "cloudpickle"]
    for package in (vmrun.agent, vmrun.store):
        names += [found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    for name in names:
        importlib.import_module(name)
    signer = vmrun.crypto.Ed25519Signer("check", vmrun.crypto.new_private_key())
    if not vmrun.crypto.Ed25519Scheme().check(signer.public_key, b"check", signer.sign(b"check")):
        sys.exit("signatures do not work on this machine")
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    places = sorted({os.path.dirname(name) for name in files if name})
    sys.stdout.write(json.dumps({"path": sys.path, "modules": len(names), "places": places}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
