"""The memories of the interpreter: global memory in blocks with bounds, shared memory with a check for races, and
counts of the wavefronts and sectors that accesses take."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
WARP, BANKS, WORD, SECTOR = 32, 32, 4, 32
GRANULE = 2  # bytes that a record of shared accesses is kept for: no kernel stores less
NOBODY = -1
SHARED_WINDOW = 1 << 56  # where generic addresses mean shared memory


class Fault(Exception):
    """What a GPU would not have done as meant: an address, an alignment, a race, a divergent warp."""


@dataclass
class Traffic:
    """Of one instruction: how often warps made it, and how many wavefronts or sectors they took; at least so many."""

    requests: int = 0
    units: int = 0
    ideal: int = 0


class GlobalMemory:
    """Blocks at the addresses that a launch was made with. No element may be written by two threads of one launch, nor
    be read by another thread than the one that wrote it: blocks run in any order."""

    def __init__(self, blocks: dict[int, bytes]) -> None:
        self.addresses = sorted(blocks)
        self.bytes = {address: np.frombuffer(blocks[address], np.uint8).copy() for address in self.addresses}
        self.starts = np.array(self.addresses, np.int64)
        self.writers = {
            address: np.full(len(self.bytes[address]) // GRANULE + 1, NOBODY, np.int32) for address in self.addresses
        }
        self.traffic: dict[int, Traffic] = defaultdict(Traffic)

    def _parts(self, addresses: Array, size: int, text: str) -> list[tuple[int, Array, Array]]:
        """(block, which of the addresses, offsets in it)"""
        if (addresses % size).any():
            raise Fault(f"misaligned address {int(addresses[addresses % size != 0][0]):#x} in {text}")
        found = np.searchsorted(self.starts, addresses, side="right") - 1
        parts = []
        for number in np.unique(found):
            which = np.flatnonzero(found == number)
            start = self.addresses[number] if number >= 0 else 0
            offsets = addresses[which] - start
            if number < 0 or offsets.max() + size > len(self.bytes[start]):
                raise Fault(f"global address out of bounds in {text}")
            parts.append((start, which, offsets))
        return parts

    def load(self, addresses: Array, size: int, lanes: Array, text: str) -> Array:
        """(bytes, size) of each address."""
        out = np.empty((len(addresses), size), np.uint8)
        for start, which, offsets in self._parts(addresses, size, text):
            out[which] = self.bytes[start][offsets[:, None] + np.arange(size)]
            writers = self.writers[start][offsets // GRANULE]
            if ((writers != NOBODY) & (writers != lanes[which])).any():
                raise Fault(f"one thread reads what another one has written in the same launch: {text}")
        return out

    def store(self, addresses: Array, values: Array, lanes: Array, text: str) -> None:
        size = values.shape[1]
        for start, which, offsets in self._parts(addresses, size, text):
            writers = self.writers[start]
            for offset in range(0, size, GRANULE):
                at = (offsets + offset) // GRANULE
                if ((writers[at] != NOBODY) & (writers[at] != lanes[which])).any() or len(np.unique(at)) < len(at):
                    raise Fault(f"two threads write one element: {text}")
                writers[at] = lanes[which]
            self.bytes[start][offsets[:, None] + np.arange(size)] = values[which]

    def count(self, instruction: int, addresses: Array, lanes: Array, size: int) -> None:
        traffic = self.traffic[instruction]
        warps = lanes // WARP
        sectors = np.unique(np.stack([warps, addresses // SECTOR]), axis=1).shape[1]
        traffic.requests += len(np.unique(warps))
        traffic.units += max(sectors, 0) if size <= SECTOR else 0
        traffic.ideal += -(-len(addresses) * size // SECTOR)


class SharedMemory:
    """Of several blocks, one after the other, filled with NaN. Between two barriers no thread may read what another one
    writes, or write what another one reads or writes; lanes of a warp may after a barrier of the warp. What cp.async
    brings is in no order with anything until its thread has waited for it."""

    def __init__(self, size: int, blocks: int, threads: int) -> None:
        self.size, self.threads = size, threads
        self.stride = -(-size // 16) * 16
        self.bytes = np.full(self.stride * blocks, 0xFF, np.uint8)
        count = len(self.bytes) // GRANULE
        self.epoch = np.zeros(blocks, np.int64)
        self.warp_epoch = np.zeros(blocks * threads // WARP, np.int64)
        self.writer = np.full(count, NOBODY, np.int64)
        self.reader = np.full(count, NOBODY, np.int64)
        self.read_by_lanes, self.read_by_warps = np.zeros(count, bool), np.zeros(count, bool)  # more than one
        self.write_epoch, self.write_warp_epoch = np.full(count, NOBODY, np.int64), np.full(count, NOBODY, np.int64)
        self.read_epoch = np.full(count, NOBODY, np.int64)
        # Lanes that exchange registers have read what these were made of: what follows may overwrite it.
        self.exchanges = np.zeros(blocks * threads // WARP, np.int64)
        self.read_exchange = np.full(count, NOBODY, np.int64)
        self.pending = np.zeros(count, bool)
        self.traffic: dict[int, Traffic] = defaultdict(Traffic)

    def _offsets(self, addresses: Array, size: int, lanes: Array, text: str) -> Array:
        if (addresses % size).any():
            raise Fault(f"misaligned shared address in {text}")
        if len(addresses) and (addresses.min() < 0 or addresses.max() + size > self.size):
            raise Fault(f"shared address out of bounds in {text}")
        return addresses + lanes // self.threads * self.stride

    def _in_order(self, other: Array, epoch: Array, warp_epoch: Array, lanes: Array) -> Array:
        """Whether the last access, by `other`, is in order with one by `lanes` now."""
        same_warp = other // WARP == lanes // WARP
        own = (other == lanes) | (other == NOBODY)
        return (
            own
            | (epoch != self.epoch[lanes // self.threads])
            | (same_warp & (warp_epoch != self.warp_epoch[lanes // WARP]))
        )

    def _check_read(self, at: Array, lanes: Array, text: str) -> None:
        if self.pending[at].any():
            raise Fault(f"race: {text} reads what cp.async has not brought yet")
        if not self._in_order(self.writer[at], self.write_epoch[at], self.write_warp_epoch[at], lanes).all():
            raise Fault(f"race: {text} reads what another thread wrote, without a barrier between them")
        epoch = self.epoch[lanes // self.threads]
        fresh = self.read_epoch[at] != epoch
        self.read_by_lanes[at[fresh]] = self.read_by_warps[at[fresh]] = False
        for _ in range(2):  # against the last reader; then against the other lanes of this instruction
            other = ~fresh & (self.reader[at] != lanes)
            self.read_by_lanes[at[other]] = True
            self.read_by_warps[at[other & (self.reader[at] // WARP != lanes // WARP)]] = True
            self.reader[at], self.read_epoch[at] = lanes, epoch
            self.read_exchange[at] = self.exchanges[lanes // WARP]
            fresh = np.zeros(len(at), bool)

    def _check_write(self, at: Array, lanes: Array, text: str) -> None:
        if self.pending[at].any():
            raise Fault(f"race: {text} writes where cp.async is writing")
        if len(np.unique(at)) < len(at):
            raise Fault(f"race: two threads write one element in {text}")
        if not self._in_order(self.writer[at], self.write_epoch[at], self.write_warp_epoch[at], lanes).all():
            raise Fault(f"race: {text} writes what another thread wrote, without a barrier between them")
        reader = self.reader[at]
        alone = (reader == NOBODY) | ((reader == lanes) & ~self.read_by_lanes[at])
        in_warp = (reader // WARP == lanes // WARP) & ~self.read_by_warps[at]
        exchanged = in_warp & (self.read_exchange[at] != self.exchanges[lanes // WARP])
        earlier = self.read_epoch[at] != self.epoch[lanes // self.threads]
        if not (alone | exchanged | earlier).all():
            raise Fault(f"race: {text} writes what another thread reads, without a barrier between them")
        self.writer[at], self.write_epoch[at] = lanes, self.epoch[lanes // self.threads]
        self.write_warp_epoch[at] = self.warp_epoch[lanes // WARP]

    def load(self, addresses: Array, size: int, lanes: Array, text: str) -> Array:
        offsets = self._offsets(addresses, size, lanes, text)
        for part in range(0, size, GRANULE):
            self._check_read((offsets + part) // GRANULE, lanes, text)
        return self.bytes[offsets[:, None] + np.arange(size)]

    def store(self, addresses: Array, values: Array, lanes: Array, text: str) -> None:
        size = values.shape[1]
        offsets = self._offsets(addresses, size, lanes, text)
        for part in range(0, size, GRANULE):
            self._check_write((offsets + part) // GRANULE, lanes, text)
        self.bytes[offsets[:, None] + np.arange(size)] = values

    def begin_copy(self, addresses: Array, size: int, lanes: Array, text: str) -> Array:
        """Of cp.async: the offsets, which nobody may touch until end_copy."""
        offsets = self._offsets(addresses, size, lanes, text)
        granules = (offsets[:, None] + np.arange(0, size, GRANULE)) // GRANULE
        for column in granules.T:
            self._check_write(column, lanes, text)
        self.pending[granules] = True
        return offsets

    def end_copy(self, offsets: Array, values: Array, lanes: Array) -> None:
        size = values.shape[1]
        granules = (offsets[:, None] + np.arange(0, size, GRANULE)) // GRANULE
        self.pending[granules] = False
        self.writer[granules] = lanes[:, None]
        self.write_epoch[granules] = self.epoch[lanes // self.threads][:, None]
        self.write_warp_epoch[granules] = self.warp_epoch[lanes // WARP][:, None]
        self.bytes[offsets[:, None] + np.arange(size)] = values

    def count(self, instruction: int, addresses: Array, lanes: Array, size: int) -> None:
        """Wavefronts: lanes go in groups of 128 bytes; in each, a bank gives one word at a time."""
        traffic = self.traffic[instruction]
        at_once = WARP * WORD // max(size, WORD)
        for warp in np.unique(lanes // WARP):
            own = lanes // WARP == warp
            groups = lanes[own] % WARP // at_once
            for group in np.unique(groups):
                first = addresses[own][groups == group] // WORD
                words = np.unique(first[:, None] + np.arange(-(-size // WORD)))
                traffic.units += int(np.bincount(words % BANKS).max())
                traffic.ideal += -(-len(words) // BANKS)
            traffic.requests += 1
