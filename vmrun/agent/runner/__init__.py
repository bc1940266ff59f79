"""The runner: the one process under the job's interpreter, which forks a worker per slot and never runs user code.

`python -m vmrun.agent.runner` is not meant for people: the agent starts it (see `vmrun.agent.engine`) with one end of
a socket pair. The package imports the standard library and `vmrun.core.blocks`; only the workers, after the fork,
import cloudpickle and what the job brings.
"""
