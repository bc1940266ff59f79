"""Making a job startable on this VM: its source, its environment, its engine."""

from __future__ import annotations

import logging
import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from vmrun import saving, sharing
from vmrun.bundle.pack import unpack
from vmrun.core.blocks import PYTHON
from vmrun.core.crew import Asked, crew_of, usable_memory
from vmrun.core.errors import UsageError
from vmrun.core.growth import grown_limit, grown_workers
from vmrun.core.model import THREAD_VARIABLES, FunctionSpec, JobSpec, ShardPlan
from vmrun.core.outgrown import Outgrown
from vmrun.core.records import CrewFacts
from vmrun.environment.install import InstallOptions, ensure_environment
from vmrun.machine.programs import facts

from .engine import Engine, EngineSpec, FunctionDefinition
from .inputs import fetch
from .runner import launch
from .states import States
from .way_in import WayIn
from .workshop import Workshop

log = logging.getLogger(__name__)

#: Names of the functions that a job with fixed tasks defines.
Role = Literal["map", "reduce"]
MAP: Final = "map"
REDUCE: Final = "reduce"


@dataclass(slots=True)
class Prepared:
    """A job that can run here."""

    spec: JobSpec
    engine_spec: EngineSpec
    engine: Engine
    shop: Workshop
    states: States
    _defined: dict[str, FunctionDefinition] = field(default_factory=dict)

    def define(self, name: str, definition: FunctionDefinition) -> None:
        """Make a function known to the engine, once."""
        if name not in self._defined:
            self._defined[name] = definition
            self.engine.define(name, definition)

    def knows(self, name: str) -> bool:
        """Whether the engine knows the function."""
        return name in self._defined

    def restart(self) -> None:
        """A new engine with the same functions."""
        self.engine.close()
        self.engine = Engine(self.engine_spec, self.shop.desk.clock)
        for name, definition in self._defined.items():
            self.engine.define(name, definition)

    def close(self, *, keep_files: bool = False) -> None:
        """End all processes of the job and remove its files, unless somebody is to look at them."""
        self.engine.close()
        if not keep_files:
            launch.remove(os.path.dirname(self.engine_spec.directory))


def crew_facts(prepared: Prepared | None) -> CrewFacts:
    """Who works here, for the record."""
    assert prepared is not None
    spec = prepared.engine_spec
    return CrewFacts(spec.workers, facts.cpus(), spec.threads)


def prepare(shop: Workshop, job: str, spec: JobSpec, outgrown: Sequence[Outgrown] = ()) -> Prepared:
    """Fetch, unpack, install, start. Raises VmrunError saying what the user can do about it.

    `outgrown` are VMs that were too small for the job.
    """
    config = shop.config
    shop.pulse.sign(job=job, busy=f"job {job}", doing="fetching the job")
    directory = os.path.join(config.work_dir, job)
    launch.remove(directory)
    os.makedirs(directory, mode=0o711)
    code = ""
    if spec.code is not None:
        code = os.path.join(directory, "code")
        unpack(fetch(shop.blobs, spec.code, "source"), code)
        if config.job_user:
            _give(code, config.job_user)
    variables = _environment_variables(shop, spec)
    way_in = WayIn(directory, code, config.python, config.app_path, variables)
    # A person may enter from here on: also where the environment cannot be installed.
    way_in.write(job)
    functions = _functions(shop, spec, code)
    memory = facts.memory()
    limit = grown_limit(spec.need, outgrown)
    crew = crew_of(facts.cpus(), memory, Asked(spec.workers, spec.threads_per_task, limit))
    if (workers := grown_workers(outgrown, crew.workers)) < crew.workers:
        crew = crew_of(facts.cpus(), memory, Asked(workers, spec.threads_per_task, limit))
    log.info("event=crew job=%s workers=%d threads=%d bound=%s", job, crew.workers, crew.threads, crew.bound)
    shared = _shared(shop, spec)
    python = _interpreter(shop, spec)
    variables |= _shared_variable(spec, shared)
    told = bool(spec.threads_per_task) or spec.kind in ("map", "open")
    threads = dict.fromkeys(THREAD_VARIABLES, str(crew.threads)) if told else {}
    replace(way_in, python=python, env={**threads, **variables}).write(job)
    shop.pulse.sign(doing="starting workers")
    engine_spec = EngineSpec(
        python=python,
        app_path=config.app_path,
        directory=os.path.join(directory, "engine"),
        workers=crew.workers,
        threads=crew.threads,
        threads_asked=bool(spec.threads_per_task),
        task_memory=limit,
        memory=usable_memory(memory),
        memory_spare=(memory - usable_memory(memory)) // 2,
        job=job,
        code_path=code,
        env={**variables, saving.DIRECTORY: os.path.join(directory, "engine", launch.RUN, launch.SAVED)},
        task_timeout=spec.task_timeout or None,
        retries=spec.retries,
        fresh=spec.fresh,
        user=config.job_user,
        # A program loads it itself when it asks for it; functions find it loaded.
        shared=shared if _is_object(spec) and spec.kind in ("map", "open") else "",
        source=functions[MAP].path if MAP in functions and functions[MAP].kind == "source" else "",
    )
    states = States(shop, job, engine_spec.env[saving.DIRECTORY])
    prepared = Prepared(spec, engine_spec, Engine(engine_spec, shop.desk.clock), shop, states)
    for role, definition in functions.items():
        prepared.define(role, definition)
    shop.pulse.sign(doing="running")
    return prepared


def _shared(shop: Workshop, spec: JobSpec) -> str:
    """The path of what the job shares; "" if it shares nothing."""
    if spec.shared is None:
        return ""
    return shop.shared.get(spec.shared, lambda text: shop.pulse.sign(doing=text), shop.pulse.sign)


def _is_object(spec: JobSpec) -> bool:
    return spec.shared is not None and not spec.shared.name


def _shared_variable(spec: JobSpec, path: str) -> dict[str, str]:
    if not path:
        return {}
    return {sharing.OBJECT if _is_object(spec) else sharing.FILE: path}


def _give(directory: str, user: str) -> None:
    """Make the job's user the owner of its code: tasks start in it, and may write beside it."""
    entry = pwd.getpwnam(user)
    for folder, folders, files in os.walk(directory):
        for name in ("", *folders, *files):
            os.chown(os.path.join(folder, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _functions(shop: Workshop, spec: JobSpec, code: str) -> dict[Role, FunctionDefinition]:
    """What a job with fixed tasks calls; fetched before there are processes that a failure would leave behind."""
    if spec.function is None:
        return {}
    roles: tuple[Role, ...] = (MAP, REDUCE) if spec.reduce else (MAP,)
    return {role: _definition(shop, spec, spec.function, role, code) for role in roles}


def define_shard(shop: Workshop, prepared: Prepared, plan: ShardPlan) -> str:
    """The name under which the engine knows what the shard's tasks call."""
    if plan.function is None:
        return REDUCE if plan.reduce else MAP
    assert plan.function.payload is not None
    name = plan.function.payload.sha256
    if not prepared.knows(name):
        code = prepared.engine_spec.code_path
        prepared.define(name, _definition(shop, prepared.spec, plan.function, MAP, code))
    return name


def _definition(shop: Workshop, spec: JobSpec, function: FunctionSpec, role: Role, code: str) -> FunctionDefinition:
    if function.kind == "pickle":
        assert function.payload is not None
        data = fetch(shop.blobs, function.payload, "function")
        return FunctionDefinition(kind="pickle", role=role, python=spec.python, data=data)
    if function.kind == "source":
        path = os.path.join(code, function.path)
        return FunctionDefinition(kind="source", role=role, python=spec.python, path=path, name=function.name)
    # "{code}/" stands for the directory that only this machine knows.
    argv = tuple(f"{code}/{word[7:]}" if word.startswith("{code}/") else word for word in function.argv)
    return FunctionDefinition(kind="command", role=role, argv=argv)


def _interpreter(shop: Workshop, spec: JobSpec) -> str:
    config = shop.config
    if spec.environment is None and (config.same_machine or spec.kind == "command" or spec.python == PYTHON):
        return config.python
    if not config.uv:
        raise UsageError(
            f"the job needs Python {spec.python}; this machine has {sys.version.split()[0]} and no uv to get another",
            hint="submit from that Python version, or choose an image that has it",
        )
    lock = "" if spec.environment is None else fetch(shop.blobs, spec.environment, "environment").decode()
    shop.pulse.sign(doing="installing the environment")

    def progress(line: str) -> None:
        shop.pulse.sign(doing=f"installing the environment: {line[:80]}")

    # Who runs the job as another user cannot write byte code into the environment later.
    told = {"ca_file": config.ca_file, "compile_bytecode": bool(config.job_user)}
    options = InstallOptions.from_data({**config.index, **told})
    path = ensure_environment(config.environments, lock, spec.python, config.uv, options, progress)
    return str(path)


def _environment_variables(shop: Workshop, spec: JobSpec) -> dict[str, str]:
    env = dict(spec.env)
    if shop.config.same_machine and spec.python_path and spec.environment is None:
        # What the submitting process could import, a task can import too.
        own = [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
        env["PYTHONPATH"] = os.pathsep.join([*own, *spec.python_path])
    return env
