"""Where things are, and how long a run shall be. Set by integration/test through the build it has made."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ARCHVHOST = TARGET / "release" / "archvhost"
LOADGEN = TARGET / "release" / "examples" / "loadgen"
STORM = TARGET / "release" / "examples" / "storm"
GUEST_IMAGE = TARGET / "integration" / "guest"
GUEST_BOOT = ROOT / "integration" / "guest" / "boot"
LIBVIRT = ROOT / "libvirt"


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def is_long() -> bool:
    """Whether the full counts were asked for (`integration/test --long`)."""
    return os.environ.get("ARCHVHOST_TEST_LENGTH") == "long"


def storm_seconds() -> int:
    """How long each storm rages: `integration/test --minutes N`, ten minutes in a long run, and otherwise a moment."""
    minutes = os.environ.get("ARCHVHOST_STORM_MINUTES")
    if minutes:
        return round(float(minutes) * 60)
    return 600 if is_long() else 30
