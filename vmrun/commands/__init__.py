"""The verbs of the command line, one module each, imported when it is used: `vmrun --help` loads none of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb: the module below this package that has its function `command`, and what stands in the list of verbs."""

    module: str
    summary: str
    hidden: bool = False
    #: Whether arguments may follow after `--`.
    takes_program: bool = False


VERBS = {
    "submit": Verb("submit", "Run a script, a job over inputs, or a program.", takes_program=True),
    "status": Verb("status", "Jobs and VMs: what they do, what they cost, when they end."),
    "logs": Verb("logs", "What a job's tasks wrote, as long as the store keeps it."),
    "result": Verb("result", "Values, files and failures of a job."),
    "plot": Verb("plot", "Draw a job's timeline, and how long its tasks took."),
    "wait": Verb("wait", "Wait until a job has ended."),
    "cancel": Verb("cancel", "End a job."),
    "ssh": Verb("ssh", "Log in to a VM or into a job on it, or run a command there.", takes_program=True),
    "release": Verb("release", "Give back a VM that is held, or kept warm, before its time is over."),
    "offers": Verb("offers", "What the clouds rent that fits, by price."),
    "cost": Verb("cost", "What was spent, by job, by day or by cloud."),
    "why": Verb("why", "The life of a VM: what happened to it, and what will end it."),
    "reap": Verb("reap", "Give back VMs that are idle, expired or orphaned."),
    "up": Verb("up", "Keep a pool of VMs that wait for jobs."),
    "down": Verb("down", "Take a pool down; VMs that work end with their job."),
    "init": Verb("init", "Write a configuration file, or prepare docker or a cloud for jobs."),
    "doctor": Verb("doctor", "Check all that jobs depend on, and say what to mend."),
    "_bring-up": Verb("bring_up", "Get a job its machine; run in the background by submit.", hidden=True),
}
