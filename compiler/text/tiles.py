"""Long loops in tiles, before each of which the memory that a later one reads is asked for.

    for tile in range(tiles(n0)):
        fetch_ahead(x0, 256*tile + 1024, n0)
        for i in range(256*tile, tile_end(tile, n0)):
            t0 += exp(x0[i])                                # and what is left of n0//8*8, as before

A loop that computes much between two loads has few of them on their way, and waits for each line of memory where the
CPU does not fetch ahead by itself (measured: a sum over 4,000,000 numbers takes 0.2 to 0.4 of the time so). LLVM does
not vectorise a loop that fetches ahead, thus the tiles. Up to `LONG` numbers are one tile and nothing is fetched: from
20 numbers on, that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

TILE = 256
"""Numbers in a tile: fewer, and adding up the lanes costs; more, and too many lines are asked for at once."""

AHEAD = 1024
"""How many numbers ahead memory is asked for: a microsecond of exponentials."""

LONG = 1024
"""Loops over more numbers are cut into tiles."""

LINE = 8  # numbers in a line of memory

_INTEGER, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()


def _is_long(builder: Any, count: Any) -> Any:
    return builder.icmp_signed(">", count, _INTEGER(LONG))


@intrinsic
def tiles(typing_context, count):  # type: ignore[no-untyped-def]
    """The number of tiles that a multiple of 8, count//8*8, is cut into."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        several = builder.lshr(builder.add(args[0], _INTEGER(TILE - 8)), _INTEGER(TILE.bit_length() - 1))
        return builder.select(_is_long(builder, args[0]), several, _INTEGER(1))

    return types.int64(types.int64), generate


@intrinsic
def tile_end(typing_context, tile, count):  # type: ignore[no-untyped-def]
    """Where a tile ends that begins at TILE*tile. LLVM sees that it is a multiple of 8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile, count = args
        whole = builder.and_(count, _INTEGER(-8))
        end = builder.mul(builder.add(tile, _INTEGER(1)), _INTEGER(TILE), flags=("nsw",))
        is_inner = builder.and_(_is_long(builder, count), builder.icmp_signed("<", end, whole))
        return builder.select(is_inner, end, whole)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def fetch_ahead(typing_context, pointer, first, count):  # type: ignore[no-untyped-def]
    """Ask for the memory of TILE numbers from pointer[first] on, if the loop over `count` is long.

    Any place will do, also one beyond the array.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, first, count = args
        kind = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [_BYTES], ir.FunctionType(ir.VoidType(), [_BYTES, kind, kind, kind])
        )
        for_reading, into_all_caches, data = kind(0), kind(3), kind(1)
        with builder.if_then(_is_long(builder, count)):
            for number in range(0, TILE, LINE):
                place = builder.gep(pointer, [builder.add(first, _INTEGER(number))])
                builder.call(function, [builder.bitcast(place, _BYTES), for_reading, into_all_caches, data])
        return context.get_dummy_value()

    return types.none(pointer, types.int64, types.int64), generate


def plain_namespace() -> dict[str, Callable[..., Any]]:
    """The same functions for kernel source that is run as plain Python."""
    return {
        "tiles": lambda count: (count + TILE - 8) // TILE if count > LONG else 1,
        "tile_end": lambda tile, count: min(TILE * (tile + 1) if count > LONG else count, count // 8 * 8),
        "fetch_ahead": lambda pointer, first, count: None,
    }
