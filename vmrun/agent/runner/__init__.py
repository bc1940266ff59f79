"""The runner: the one process under the job's interpreter, which forks a worker per slot and never runs user code.

The agent starts it (`launch`) with one end of a socket pair and talks to it in `frames`. In the runner, `loop` waits
for whatever happens, `dispatch` hands out tasks in `chunks`, `outcomes` turns reports and deaths into one outcome per
task. In a forked `worker`, `functions` finds what to call, `keeper` keeps what comes out, `meter` measures that,
and `guard` undoes what it did to the process; `shared` is the memory that both see. The package imports the standard
library and `vmrun.core.blocks` with its `columns`; only workers, after the fork, import cloudpickle and what the job
brings.
"""
