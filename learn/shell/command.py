"""The shell: `wiberg explain`, `check`, `cache`; and `fit`, `apply`, `evaluate`, which are in learning_command.py.

    wiberg explain model.py:energy                       what the compiler made of it, and what that costs
    wiberg explain model.py:energy --at point.npz        why the energy or a derivative is not finite there
    wiberg check model.py:energy                         every derivative against an outside reference
    wiberg cache --clear                                 what is kept on disk
    wiberg fit SPEC.toml                                 learn weights, or go on where a run was
    wiberg apply RUN DATA                                minima at the weights learnt
    wiberg evaluate RUN DATA                             the loss before and after

Exit codes: 0, 1 (a derivative is wrong, a number is not finite), 2 (what was asked for cannot be done), 130 (Ctrl-C).
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.kernel import Kernel, compile
from ...compiler.machine_code import cache
from ...energies.energy import Energy
from ...energies.errors import InputError, NameMissingError, WibergError, nearest
from .exit_codes import FOUND, INTERRUPTED, REFUSED
from .learning_command import learning_commands
from .python_file import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
    except WibergError as error:
        return _refused(f"wiberg {options.command}: {error}", options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _refused(message: str, options: argparse.Namespace) -> int:
    if options.debug:
        traceback.print_exc()
    print(message, file=sys.stderr)
    return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wiberg", description="Energies declared in SymPy, from the shell.")
    parser.add_argument("--version", action="version", version=f"wiberg {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        own = commands.add_parser(name, help=text, description=text)
        own.add_argument("--debug", action="store_true", help="show the traceback of an error")
        own.set_defaults(run=run)
        return own

    def energy_command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        own = command(name, run, text)
        own.add_argument("energy", metavar="FILE.py:NAME", help="a Python file, and an energy, a kernel or a function "
                         "without arguments that makes one; the file is run")  # fmt: skip
        own.add_argument(
            "--backend", choices=["numba", "reference"], default="numba", help="reference: without compiling"
        )
        return own

    explain = energy_command("explain", _explain, "Show the program of an energy, its structure and its cost.")
    explain.add_argument(
        "--at", metavar="POINT.npz", type=Path, help="arrays by name: find what is not finite there, and why"
    )
    check = energy_command("check", _check, "Check every derivative against an outside reference.")
    check.add_argument("--trials", type=int, default=20, help="random sizes and points (default 20)")
    check.add_argument("--seed", type=int, default=0, help="where they start (default 0)")
    learning_commands(command)
    stored = command("cache", _cache, "Show where compiled code is kept and how much of it there is, or remove it.")
    stored.add_argument("--clear", action="store_true", help="remove all of it")
    return parser


def version() -> str:
    """The version of the package."""
    return str(sys.modules[(__package__ or "").partition(".")[0]].__version__)


# ---------------------------------------------------------------------------------------------- commands


def _explain(options: argparse.Namespace) -> int:
    kernel = compile(load_energy(options.energy), backend=options.backend)
    explanation = kernel.explain(*(() if options.at is None else load_point(kernel, options.at)))
    print(explanation)
    return 0 if explanation.not_finite is None else FOUND


def _check(options: argparse.Namespace) -> int:
    from ...compiler.testing import check_derivatives  # here: it needs mpmath's functions, which the others do not

    if options.trials < 1:
        raise InputError(f"--trials must be at least 1; got {options.trials}")
    energy = load_energy(options.energy)
    report = check_derivatives(energy, options.trials, options.seed, backend=options.backend)
    print(report)
    return 0 if report.ok else FOUND


def _cache(options: argparse.Namespace) -> int:
    folder = cache.cache_directory()
    if options.clear:
        count, size = cache.clear()
        print(f"{folder}: {count} folders removed, {_size(size)}")
        return 0
    stored = cache.contents()
    print(folder)
    for kind in ("kernel", "driver", "declaration"):
        sizes = [item.size for item in stored if item.kind == kind]
        print(f"  {len(sizes):6} {kind}s{'':{12 - len(kind)}} {_size(sum(sizes)):>10}")
    total, limit = _size(sum(item.size for item in stored)), _size(cache.limit())
    print(f"  {len(stored):6} in all        {total:>10} of {limit} (WIBERG_CACHE_SIZE)")
    return 0


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


# ---------------------------------------------------------------------------------------------- files


def load_energy(text: str) -> Energy:
    """The energy of `FILE.py:NAME`; the name may be left out where the file has one energy only.

    Raises
    ------
    InputError, NameMissingError
        If there is no such file, it cannot be run, or has no energy of that name.
    """
    made = load(text, (Energy, Kernel), "a wb.Energy, a kernel")
    return made.energy if isinstance(made, Kernel) else made


def load_point(kernel: Kernel, path: Path) -> tuple[dict[str, Any], ...]:
    """The arrays of an .npz file as (y, w, x).

    Raises
    ------
    InputError, NameMissingError
        If it is no such file, or has an array of a name that the energy does not know.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no .npz file of arrays ({error}); write one with numpy.savez(path, t=..., ...)") \
            from error  # fmt: skip
    energy = kernel.energy
    roles = tuple([str(s.name) for s in role] for role in (energy.variables, energy.weights, energy.data))
    known = [name for role in roles for name in role]
    for name in arrays:
        if name not in known:
            raise NameMissingError(
                f"energy {energy.name!r} has no {name!r}, which {path} holds{nearest(name, known)}; "
                f"it has {', '.join(known)}"
            )
    return tuple({name: arrays[name] for name in role if name in arrays} for role in roles)


if __name__ == "__main__":
    sys.exit(main())
