"""Keeping leases: one heartbeat for all runs that this engine holds.

Model. A lease has a time in storage, and our trust in it has one here, which ends earlier. Heartbeats move both on,
three times in the length of a lease. Trust counts from when a heartbeat was sent, as the lease does: what the storage
takes to answer is no time gained. A heartbeat that names a run as lost drops that run. When no heartbeat has got
through for most of a lease, all runs are dropped: each write is fenced anyway, but a body that goes on while another
engine runs the same one is what leases are there to avoid. As soon as the storage answers they are given back, if
nobody has taken them.

A jump of the clock (a laptop that slept, a body that blocked the event loop) makes a heartbeat due and trust end at the
same moment; the heartbeat gets a little time first, because where nobody has taken the run the lease is simply renewed.
For the same reason the worker sends an overdue heartbeat before it claims: it would take its own runs over.
"""

from __future__ import annotations

import logging

from anyio import Event, Lock, create_task_group

from reflow._engine.clock import Clock
from reflow._engine.runner import Runner
from reflow.errors import StorageError
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Lease

__all__ = ["LeaseKeeper"]

_log = logging.getLogger("reflow")


class LeaseKeeper:
    """Holds the runners whose leases are to be kept."""

    def __init__(self, storage: StorageAdapter, clock: Clock, length_us: int) -> None:
        self.length_us = length_us
        self.held: dict[Lease, Runner] = {}
        self._storage = storage
        self._clock = clock
        self._renewing = Lock(fast_acquire=True)
        self._renewed = Event()
        self._renewed_at = 0

    def runner_of(self, run_id: str) -> Runner | None:
        """Who holds a run here; the latest, where it was claimed again before it was told how it was left."""
        return next((self.held[lease] for lease in reversed(self.held) if lease.run_id == run_id), None)

    async def keep(self) -> None:
        """Send heartbeats until cancelled."""
        await self.renew()
        async with create_task_group() as tasks:
            tasks.start_soon(self._watch)
            while True:
                await self._clock.wait(Event(), self._renewed_at + self.length_us // 3)
                while not await self.renew():
                    await self._clock.wait(Event(), self._clock.now() + self.length_us // 20)

    async def renew(self) -> bool:
        """Send a heartbeat if one is due; False where the storage failed."""
        async with self._renewing:
            sent_at = self._clock.now()
            # Where the clock was put back to before the last one, nobody knows how long ago that was: one is due.
            if self._renewed_at <= sent_at < self._renewed_at + self.length_us // 3:
                return True
            try:
                await self._beat(lease_until=sent_at + self.length_us)
            except StorageError as error:
                _log.warning("heartbeat of %d runs: %s; trying again", len(self.held), error)
                return False
            self._renewed_at = sent_at
            renewed, self._renewed = self._renewed, Event()
            renewed.set()
            return True

    async def _beat(self, lease_until: int) -> None:
        leases = [lease for lease, runner in self.held.items() if not runner.is_dropped]
        for lease in await self._storage.heartbeat(leases, lease_until=lease_until) if leases else []:
            runner = self.held.get(lease)
            # A run that is just leaving may have ended its lease itself, in the same batch; its own write will tell.
            if runner and not runner.is_leaving:
                _log.warning(
                    "run %s: another engine has taken it over; dropped here. Did the event loop, or the process, stand "
                    "still for longer than the lease?",
                    lease.run_id,
                )
                runner.drop()

    async def _watch(self) -> None:
        while True:
            renewed, since = self._renewed, self._renewed_at
            while not renewed.is_set() and self._clock.now() < (until := since + self.length_us * 18 // 20):
                await self._clock.wait(renewed, until)
                # Put back to before that, the clock cannot tell what is left of it: trust counts from now.
                since = min(since, self._clock.now())
            while not renewed.is_set():
                asked_at = self._clock.now()
                await self._clock.wait(renewed, asked_at + self.length_us // 20)
                # Had much more time passed, we were not running, and an answer may be there that nobody has read.
                if self._clock.now() - asked_at < self.length_us // 10:
                    break
            trusted = [] if renewed.is_set() else [each for each in self.held.values() if not each.is_dropped]
            if trusted:
                _log.error("no heartbeat got through for the length of a lease; %d runs dropped", len(trusted))
            for runner in trusted:
                runner.drop(is_lost=False)
