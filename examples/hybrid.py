"""Half of the work on hosts that I have, half on a machine that is rented: `python examples/hybrid.py ssh ec2`.

Without names, two machines of this computer share it: `python examples/hybrid.py`.
"""

import sys
from collections import Counter

import vmrun


def work(seed: int) -> tuple[str, int]:
    """One input: a number that takes a moment to find, and the machine that found it."""
    import socket

    steps, number = 0, seed + 1
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return socket.gethostname(), steps


def main(mine: str = "local", rented: str = "local") -> None:
    with vmrun.HybridExecutor(vmrun.Executor(on=mine), vmrun.Executor(on=rented)) as pool:
        results = list(pool.map(work, range(1000)))
    machines = Counter(machine for machine, _ in results)
    for machine, calls in machines.most_common():
        print(f"{calls} calls on {machine}")
    print(f"the longest of {len(results)} walks has {max(steps for _, steps in results)} steps")


if __name__ == "__main__":
    main(*sys.argv[1:])
