"""Set-up before wiberg and NumPy are imported: a private kernel cache, one thread of BLAS, hypothesis profiles."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for `from energies_table import TABLE`

if "WIBERG_TEST_CACHE" not in os.environ:  # the workers of pytest-xdist inherit it: what one compiles, the others load
    os.environ["WIBERG_TEST_CACHE"] = tempfile.mkdtemp(prefix="wiberg-tests-")
    atexit.register(
        lambda folder, owner: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True),
        os.environ["WIBERG_TEST_CACHE"],
        os.getpid(),
    )
os.environ["WIBERG_CACHE_DIR"] = os.environ["WIBERG_TEST_CACHE"]


# The linear algebra that tests compare with: several threads of it in each of several processes wait for each other,
# spinning, for longer than they work. No kernel and no driver uses it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# A job in the background of a shell begins with Ctrl-C ignored, and so would what tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--accept-golden", action="store_true", help="write the kept sources anew (test_golden.py)")


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")
