#!/usr/bin/env python3
"""Runs the real-guest tests and closes with a line like cargo's, so that one reader sums both.

Usage: run.py [--short | --long] [PATTERN...]; called by integration/test, which builds first.
"""

import os
import sys
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
DIRECTORIES = ("daemon", "branching", "storm", "qemu", "libvirt", "rados")


class TimedResult(unittest.TextTestResult):
    """Says how long each test took, and counts those that passed."""

    passed = 0

    def startTest(self, test):
        self.started = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        self.passed += 1
        self.stream.write(f"({time.monotonic() - self.started:.1f} s) ")
        super().addSuccess(test)


def load_tests(patterns) -> unittest.TestSuite:
    suite = unittest.TestSuite()
    for name in DIRECTORIES:
        loader = unittest.TestLoader()
        if patterns:
            loader.testNamePatterns = [f"*{pattern}*" for pattern in patterns]
        sys.path.insert(0, str(HERE / name))
        suite.addTests(loader.discover(str(HERE / name), top_level_dir=str(HERE / name)))
    return suite


def main() -> int:
    options = [a for a in sys.argv[1:] if a.startswith("--")]
    patterns = [a for a in sys.argv[1:] if not a.startswith("--")]
    os.environ["ARCHVHOST_TEST_LENGTH"] = "long" if "--long" in options else "short"
    sys.path.insert(0, str(HERE))
    runner = unittest.TextTestRunner(sys.stdout, verbosity=2, resultclass=TimedResult)
    result = runner.run(load_tests(patterns))
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    word = "ok" if failed == 0 else "FAILED"
    print(f"test result: {word}. {result.passed} passed; {failed} failed; {skipped} ignored")
    return 0 if failed == 0 and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
