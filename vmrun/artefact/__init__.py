"""What a VM is given to run: the agent with all that it needs, in one file, and nothing of the machine's own."""

from vmrun.environment.target import Target

from .app import app_directory
from .build import Artefact, build_artefact, build_uv

__all__ = ["Artefact", "Target", "app_directory", "build_artefact", "build_uv"]
