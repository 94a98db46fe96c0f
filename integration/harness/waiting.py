"""Waiting for a condition, with a limit and words for the failure."""

import time


def wait_until(condition, what: str, limit_s: float = 20, pause_s: float = 0.02):
    """Returns the first true value of condition(); fails after limit_s."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s:g} s for {what}")
        time.sleep(pause_s)
    return value
