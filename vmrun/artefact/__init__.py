"""What a VM is given to run: the agent with all that it needs, in one file, and nothing of the machine's own.

`build` makes the file, for another machine; `app` is what this machine needs of it. Nothing is imported here: jobs on
this machine need no build.
"""
