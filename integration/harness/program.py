"""Runs the archvhost program as a person would, and gives back what it printed."""

import json
import os
import subprocess
from dataclasses import dataclass

from harness.place import ARCHVHOST


@dataclass
class Outcome:
    status: int
    out: str
    err: str


def try_archvhost(*argv, stdin=None, limit_s: float = 60) -> Outcome:
    """Runs `archvhost ARGV…`, whatever its exit status."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ARCHVHOST_")}
    done = subprocess.run(
        [str(ARCHVHOST), *(str(a) if not isinstance(a, bytes) else a for a in argv)],
        input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True, timeout=limit_s, env=environment,
    )
    return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def archvhost(*argv, **options) -> str:
    """Runs `archvhost ARGV…`, which must succeed; returns what it printed."""
    outcome = try_archvhost(*argv, **options)
    assert outcome.status == 0, f"archvhost {argv}: exit status {outcome.status}: {outcome.err}{outcome.out}"
    return outcome.out


def archvhost_json(*argv):
    return json.loads(archvhost(*argv, "--json"))
