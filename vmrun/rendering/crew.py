"""Who works on a job, in one line."""

from __future__ import annotations

from vmrun.core.views import JobView

from .text import count


def crew_line(view: JobView) -> str:
    """`workers: 8 (one per core); BLAS/OpenMP threads per task: 1`.

    Nothing before it is known, nor of a script or a program, which has the whole machine.
    """
    if not view.workers or view.kind in ("script", "command"):
        return ""
    if view.workers == view.cores:
        where = "one per core"
    else:
        where = f"on {count(view.cores, 'core')}" if view.cores else ""
    threads = f"; BLAS/OpenMP threads per task: {view.threads}" if view.threads else ""
    return f"workers: {view.workers}{f' ({where})' if where else ''}{threads}"
