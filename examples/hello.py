"""Any script is a job: no import of vmrun, no main function, nothing to declare.

    vmrun submit examples/hello.py -- Ada

What it prints comes home, and so do its exit code and the files that it writes under $VMRUN_OUTPUT.
"""

import os
import platform
import sys
from pathlib import Path

name = sys.argv[1] if len(sys.argv) > 1 else "world"
greeting = f"Hello, {name}, from {platform.node()}: {os.cpu_count()} cores, Python {platform.python_version()}"
print(greeting)

folder = Path(os.environ.get("VMRUN_OUTPUT", "."))
(folder / "hello.txt").write_text(greeting + "\n")
