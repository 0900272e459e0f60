"""Set-up that must come before wiberg is imported: one private kernel cache for the whole run, hypothesis profiles."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for `from energies_table import TABLE`

if "WIBERG_TEST_CACHE" in os.environ:
    os.environ["WIBERG_CACHE_DIR"] = os.environ["WIBERG_TEST_CACHE"]
else:
    os.environ["WIBERG_CACHE_DIR"] = tempfile.mkdtemp(prefix="wiberg-tests-")
    atexit.register(
        lambda folder, owner: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True),
        os.environ["WIBERG_CACHE_DIR"],
        os.getpid(),
    )


def pytest_addoption(parser):
    parser.addoption("--accept-golden", action="store_true", help="write the kept sources anew (test_golden.py)")


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")
