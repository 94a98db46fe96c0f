"""The store's directory seen from outside, and a small file system to run full."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.waiting import wait_until


@dataclass(frozen=True)
class Usage:
    files: int
    allocated_bytes: int


def usage(directory: Path) -> Usage:
    """Counts the regular files below directory and the space they really take."""
    sizes = [path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file()]
    return Usage(len(sizes), sum(sizes))


class SmallFileSystem:
    """An ext4 of its own, in a file, loop-mounted: it runs full without hurting anybody."""

    def __init__(self, directory: Path, mib: int):
        self.image = directory / "small.ext4"
        self.mount_point = directory / "small"
        self.mount_point.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(mib << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mount_point], check=True)

    def unmount(self):
        # The kernel lets go of a killed daemon's io_uring files a moment after the process is gone.
        wait_until(self._unmounted, f"unmounting {self.mount_point}", limit_s=10, pause_s=0.2)

    def _unmounted(self) -> bool:
        return subprocess.run(["umount", self.mount_point], stderr=subprocess.DEVNULL).returncode == 0
