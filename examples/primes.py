"""The same as a program of your own: an executor whose workers are on a VM.

    python examples/primes.py

Nothing but the `with` line differs from `concurrent.futures.ProcessPoolExecutor`.
"""

from __future__ import annotations

import vmrun

#: Numbers per call.
STEP = 20_000


def primes_from(start: int) -> int:
    """How many primes there are in the STEP numbers from `start` on, by trial division."""
    return sum(is_prime(number) for number in range(start, start + STEP))


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


if __name__ == "__main__":
    with vmrun.Executor() as pool:
        counts = list(pool.map(primes_from, range(0, 1_000_000, STEP)))
    print(f"{sum(counts):,} primes below {STEP * len(counts):,}")
