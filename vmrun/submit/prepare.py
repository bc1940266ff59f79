"""From a request to a job specification and the bytes that it names. Nothing is written to the store here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cloudpickle

from vmrun.artefact.app import app_directory
from vmrun.bundle.arguments import PackedArguments, pack_arguments, unpicklable
from vmrun.bundle.inspector import Inspection, JobInterpreter, inspect_job
from vmrun.bundle.modules import local_files, read_files
from vmrun.bundle.pack import Packed, pack
from vmrun.bundle.program import own_program
from vmrun.bundle.script import Script, parse_target, read_script
from vmrun.bundle.sharing import WHAT, pack_shared
from vmrun.core import codec
from vmrun.core.blocks import PYTHON
from vmrun.core.clock import Clock
from vmrun.core.errors import UsageError
from vmrun.core.model import Arguments, FunctionSpec, JobSpec, Payload, SharedData, shard_size
from vmrun.environment.install import InstallOptions, ensure_environment
from vmrun.environment.lock import Locker, lock_environment
from vmrun.environment.requirements import EnvironmentSpec, RequirementsFile, environment_spec, parse_requirements
from vmrun.environment.target import Target, this_machine
from vmrun.environment.uv import find_uv
from vmrun.environment.versions import choose_python
from vmrun.job import Job, inputs_of, shared_of
from vmrun.settings import Settings
from vmrun.store.files import CheckedPieces, FilePieces, hash_file

from .options import Options, decide
from .processor import for_program, settled
from .request import SubmitRequest
from .sizing import Sized

OnStage = Callable[[str], None]
#: Options that the environment of a callable is decided with when there is no script.
_NO_HEADER: dict[str, Any] = {}


@dataclass(slots=True)
class Submission:
    """A job specification, and the payloads that must be in the store before it."""

    spec: JobSpec
    options: Options
    data: list[tuple[Payload, bytes]] = field(default_factory=list)
    files: list[tuple[Payload, Path]] = field(default_factory=list)
    #: Payloads that are no file and too large for memory; their pieces can be walked again.
    streams: list[tuple[Payload, Iterable[bytes]]] = field(default_factory=list)
    #: What the job's file printed when it was looked at.
    said: str = ""
    #: What `--memory auto` came to.
    sized: Sized | None = None
    #: Whether its machine costs anything, as far as is known.
    costs: bool = False

    def add(self, data: bytes) -> Payload:
        """Name bytes as a payload."""
        payload = Payload(codec.sha256(data), len(data))
        self.data.append((payload, data))
        return payload

    def add_arguments(self, packed: PackedArguments) -> Arguments:
        """Name packed arguments as payloads."""
        data = Payload(packed.sha256, packed.size)
        self.files.append((data, packed.path))
        return Arguments(data, self.add(packed.index))

    def share(self, payload: Payload, pieces: Iterable[bytes], name: str = "") -> None:
        """Name what all workers share as a payload; `name` for a file."""
        self.streams.append((payload, CheckedPieces(pieces, payload.sha256, name or WHAT)))
        self.spec = replace(self.spec, shared=SharedData(payload, name))


class Preparer:
    """Prepares submissions; `directory` is an empty one of the caller's, to be removed after publishing."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        on_stage: OnStage,
        same_machine: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._directory = directory
        self._on_stage = on_stage
        self._same_machine = same_machine
        self._variables = package_variables(settings, os.environ)

    def prepare(self, request: SubmitRequest) -> Submission:
        """Raises UsageError or ConfigError for whatever cannot be submitted as it is."""
        if callable(request.target):
            return self._callable(request, request.target)
        if request.target:
            return self._script(request, str(request.target))
        if not request.argv:
            raise UsageError("there is nothing to submit", hint="vmrun submit job.py, or vmrun submit -- command …")
        return self._command(request)

    def prepare_open(self, request: SubmitRequest) -> Submission:
        """An open job for an executor: its tasks come later."""
        options = decide(request, _NO_HEADER, {}, self._settings, "executor")
        submission = self._submission(request, options, (), "open", request.python or PYTHON)
        self._add_main_modules(submission)
        return submission

    # --- the three forms ---

    def _command(self, request: SubmitRequest) -> Submission:
        name = os.path.basename(request.argv[0])
        options = decide(request, _NO_HEADER, {}, self._settings, name)
        program = own_program(request.argv[0])
        options = options if program is None else for_program(options, Path(request.argv[0]))
        submission = self._submission(request, options, (), "command", request.python or PYTHON)
        argv = request.argv
        if program is not None:
            code = submission.add(pack(read_files([program])).data)
            argv = (f"{{code}}/{program.path}", *argv[1:])
            submission.spec = replace(submission.spec, code=code)
        submission.spec = replace(submission.spec, function=FunctionSpec("command", argv=argv))
        return _one_task(submission, request)

    def _script(self, request: SubmitRequest, text: str) -> Submission:
        target = parse_target(text)
        script = read_script(target.path)
        header = script.header
        wanted = request.python or str(header.options.get("python") or self._settings.defaults.python)
        python = choose_python(header.requires_python, PYTHON, wanted)
        requirements = self._requirements(request, header.dependencies, python)
        found = self._inspect(script, target.name, requirements, python)
        options = decide(request, header.options, found.options, self._settings, target.name or target.path.stem)
        kind = "map" if found.kind == "map" else "script"
        if kind == "map" and request.argv:
            raise UsageError(
                f"{text}: a job over inputs takes no arguments: {' '.join(request.argv)[:80]}",
                hint="vmrun's own options stand before `--`",
            )
        submission = self._submission(request, options, header.dependencies, kind, python, requirements)
        submission.said = found.output
        code = self._pack(script)
        path = target.path.name
        if kind == "script":
            argv = ("{python}", f"{{code}}/{path}", *request.argv)
            function = FunctionSpec("command", argv=argv)
        else:
            function = FunctionSpec("source", path=path, name=found.name)
        submission.spec = replace(
            submission.spec, function=function, code=submission.add(code.data), reduce=found.reduce
        )
        if found.shared is not None and submission.spec.shared is None:
            submission.share(*found.shared)
        if found.arguments is None:
            return _one_task(submission, request)
        return self._with_tasks(submission, found.arguments)

    def _callable(self, request: SubmitRequest, target: Callable[..., Any]) -> Submission:
        job = target if isinstance(target, Job) else None
        fn: Callable[..., Any] = job.fn if job is not None else target
        decorator = job.options if job is not None else {}
        options = decide(request, _NO_HEADER, decorator, self._settings, getattr(fn, "__name__", "job"))
        submission = self._submission(request, options, (), "map", request.python or PYTHON)
        reducer = request.reducer or (job.reducer if job is not None else None)
        payload = submission.add(_pickle(fn if reducer is None else Job(fn, None, {}), reducer))
        function = FunctionSpec("pickle", payload=payload)
        submission.spec = replace(submission.spec, function=function, reduce=reducer is not None)
        self._add_main_modules(submission)
        if job is not None and submission.spec.shared is None:
            self._share(submission, shared_of(job))
        over: Iterable[Any] | None = request.over
        if over is None and job is not None and job.over is not None:
            over = inputs_of(job)
        packed = (
            pack_arguments([((), {})], self._directory, call="call")
            if over is None
            else pack_arguments(over, self._directory)
        )
        return self._with_tasks(submission, packed)

    # --- parts ---

    def _submission(
        self,
        request: SubmitRequest,
        options: Options,
        dependencies: tuple[str, ...],
        kind: str,
        python: str,
        requirements: EnvironmentSpec | None = None,
    ) -> Submission:
        wanted = requirements or self._requirements(request, dependencies, python)
        options = settled(options, locked=bool(wanted))
        path = tuple(entry or os.getcwd() for entry in sys.path) if kind in ("map", "open") else ()
        spec = JobSpec(
            name=options.name,
            kind=kind,
            function=None,
            python=python,
            env=options.env,
            python_path=path if self._same_machine(options.on) else (),
            workers=options.workers,
            threads_per_task=options.threads_per_task,
            fresh=options.fresh,
            retries=options.retries,
            task_timeout=options.task_timeout,
            need=options.need,
            vms=options.vms if kind == "open" else 1,
            replace_lost=options.replace_lost,
        )
        submission = Submission(spec, options)
        if wanted or python != PYTHON:
            lock = self._lock(wanted, Target(python, self._arch(options))) if wanted else ""
            submission.spec = replace(spec, environment=submission.add(lock.encode()))
        if request.shared_file is not None:
            if request.shared is not None:
                raise UsageError("both an object and a file to be shared", hint="leave out shared= or shared_file=")
            self._share_file(submission, request.shared_file)
        self._share(submission, request.shared)
        return submission

    def _share(self, submission: Submission, value: object) -> None:
        if value is None:
            return
        self._on_stage("packing the shared object")
        packed = pack_shared(value, self._directory)
        submission.share(Payload(packed.sha256, packed.size), packed)

    def _share_file(self, submission: Submission, text: str) -> None:
        self._on_stage("reading the shared file")
        path = Path(text)
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist"
            raise UsageError(f"the file to be shared {what}: {text[:200]}", hint="name one file; pack several with tar")
        try:
            sha256, size = hash_file(path)
        except OSError as error:
            raise UsageError(
                f"{text[:200]}: {error.strerror or error}", hint="share a file that can be read"
            ) from error
        submission.share(Payload(sha256, size), FilePieces(path.absolute()), path.absolute().name)

    def _arch(self, options: Options) -> str:
        return options.need.arch or this_machine().arch

    def _requirements(self, request: SubmitRequest, dependencies: tuple[str, ...], python: str) -> EnvironmentSpec:
        file: RequirementsFile | None = None
        if request.requirements is not None:
            base = Path(request.requirements)
            file = parse_requirements(_read(base), str(base), lambda name: _read(base.parent / name))
        return environment_spec(python, dependencies, request.with_packages, file)

    def _lock(self, wanted: EnvironmentSpec, target: Target) -> str:
        self._on_stage("resolving the environment")
        locker = Locker(find_uv(), sys.executable, self._settings.cache_dir, self._on_stage, self._variables)
        return lock_environment(wanted, target, locker)

    def _inspect(self, script: Script, name: str, wanted: EnvironmentSpec, python: str) -> Inspection:
        interpreter = Path(sys.executable)
        if script.uses_job and (wanted or python != PYTHON):
            self._on_stage("installing the environment here, to look at the job")
            lock = self._lock(wanted, this_machine(python)) if wanted else ""
            options = InstallOptions(
                variables=self._variables, ca_file=self._settings.environment.ca_file, compile_bytecode=False
            )
            root = self._settings.cache_dir / "environments"
            interpreter = ensure_environment(root, lock, python, find_uv(), options, self._on_stage)
        app = app_directory(self._settings.cache_dir)
        folder = self._directory / "inspection"
        folder.mkdir()
        return inspect_job(
            script, name, interpreter=JobInterpreter(interpreter, app), directory=folder, clock=self._clock
        )

    def _pack(self, script: Script) -> Packed:
        return pack(read_files(local_files(script)))

    def _add_main_modules(self, submission: Submission) -> None:
        """The modules beside the program that runs: its functions may use them. On this machine they are there."""
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        if self._same_machine(submission.options.on) or main is None or not main.endswith(".py"):
            return
        code = self._pack(read_script(Path(main)))
        submission.spec = replace(submission.spec, code=submission.add(code.data))

    def _with_tasks(self, submission: Submission, packed: PackedArguments) -> Submission:
        tasks = packed.count
        arguments = submission.add_arguments(packed) if tasks else None
        vms = max(1, min(submission.options.vms, tasks))
        submission.spec = replace(
            submission.spec, tasks=tasks, shard_size=shard_size(tasks, vms), arguments=arguments, vms=vms
        )
        return submission


def package_variables(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv: where packages come from, by the configuration, over what `environ` says."""
    environment = settings.environment
    variables = dict(environ)
    if environment.index_url:
        variables["UV_DEFAULT_INDEX"] = environment.index_url
    if environment.extra_index_urls:
        variables["UV_INDEX"] = " ".join(environment.extra_index_urls)
    if environment.ca_file:
        variables["SSL_CERT_FILE"] = environment.ca_file
    return variables


def _one_task(submission: Submission, request: SubmitRequest) -> Submission:
    if (request.vms or 1) > 1:
        raise UsageError(
            f"{request.vms} machines for one task: a script or a program is run by one machine as a whole",
            hint="leave out --vms; a job over inputs (@vmrun.job(over=…)) is shared by several",
        )
    submission.spec = replace(submission.spec, tasks=1, shard_size=1)
    return submission


def _pickle(fn: Callable[..., Any], reducer: Callable[..., Any] | None) -> bytes:
    """The function as bytes; with a reducer, the pair of both as a Job."""
    target: Any = fn
    if reducer is not None:
        assert isinstance(fn, Job)
        fn.reducer = reducer
    try:
        return bytes(cloudpickle.dumps(target, protocol=5))
    except Exception as error:
        raise unpicklable(target, "the function", error) from error


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="give a requirements file that can be read") from error
