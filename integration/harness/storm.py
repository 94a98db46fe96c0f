"""The storm (integration/storm), run on a store and held to what it reports."""

import json
import os
import subprocess
import time
from pathlib import Path

from harness.place import ARCHVHOST, STORM


def rage(directory: Path, soft_journals: Path, seconds: int, *options, environment=()) -> dict:
    """Returns its report; fails when it found something. The seed is of the clock, and printed: another run of it has the same verbs,
    if not the same timing."""
    seed = int(os.environ.get("ARCHVHOST_STORM_SEED") or time.time())
    directory.mkdir()
    argv = [STORM, "--program", ARCHVHOST, "--dir", directory, "--soft-journals", soft_journals,
            "--seconds", seconds, "--seed", seed, "--verbose", *options]
    print(f"seed {seed} ", end="", flush=True)
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          timeout=seconds * 2 + 300, env={**os.environ, **dict(environment)})
    log = directory / "daemon.log"
    told = f"seed {seed}: {done.stdout}\n{done.stderr[-6000:]}\nthe daemon's log:\n{log.read_text()[-3000:]}"
    assert done.returncode == 0, told
    report = json.loads(done.stdout)
    verbs = sum(report["verbs"].values())
    print(f"{report['requests']} requests, {verbs} verbs, {report['kills']} kills ", end="", flush=True)
    assert verbs > 0, told
    return report
