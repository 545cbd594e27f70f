"""The verbs that keep schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from reflow._core.command import checked_name
from reflow._core.definition import Call
from reflow._core.duration import Duration
from reflow._core.schedule import Missed, Recurrence, schedule_key
from reflow._engine.access import Access
from reflow._engine.inspection import ScheduleInfo, describe_schedule
from reflow._engine.intake import Order, checked_text
from reflow.codec import Codec
from reflow.errors import ConfigError
from reflow.storage.records import ScheduleRow

__all__ = ["Overlap", "Schedules"]

Overlap: TypeAlias = Literal["allow", "skip"]


class Schedules(Access):
    """Stores schedules; an engine fires them."""

    async def schedule(
        self,
        call: Call[Any] | str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        every: Duration | None = None,
        cron: str | None = None,
        tz: str = "UTC",
        key: str | None = None,
        missed: Missed = "skip",
        overlap: Overlap = "allow",
        version: int | None = None,
    ) -> str:
        """Store a schedule, which starts runs of `call` again and again; returns its key.

        `every` is an interval, `cron` are times by the calendar, read in the zone `tz`; give one of them. Without `key`
        it follows from workflow, recurrence and input. Where there is a schedule of this key, it is replaced, and keeps
        its cadence where the recurrence is the same. `missed` (`"skip"`, `"once"`, `"all"`) says what happens to
        occurrences at which no engine ran, `overlap="skip"` leaves one out while the last run has not ended. A call
        may be named by text, as for `enqueue`; without `version` its runs have the latest that the engine knows.

        Raises `ConfigError`, and what `enqueue` raises for a wrong workflow or input.
        """
        order = self._take_order(call, arguments, version, "schedule")
        row = _new_schedule(
            order,
            Recurrence(every=every, cron=cron, tz=tz),
            key=key,
            missed=missed,
            overlap=overlap,
            codec=self._codec,
            now=self._clock.now(),
        )
        await self._storage.put_schedule(row)
        self._schedules_changed()
        return row.key

    async def unschedule(self, key: str) -> bool:
        """Remove a schedule; False where there is none. The runs that it has started stay."""
        return await self._storage.delete_schedule(checked_text(key, "key"))

    async def pause_schedule(self, key: str) -> bool:
        """Let a schedule rest; False where there is none."""
        return await self._storage.pause_schedule(checked_text(key, "key"), paused=True, now=self._clock.now())

    async def resume_schedule(self, key: str) -> bool:
        """Let a paused schedule go on; False where there is none. What has passed meanwhile was missed."""
        found = await self._storage.pause_schedule(checked_text(key, "key"), paused=False, now=self._clock.now())
        self._schedules_changed()
        return found

    async def list_schedules(self) -> list[ScheduleInfo]:
        """All schedules, in order of their keys."""
        return [describe_schedule(row, self._codec) for row in await self._storage.get_schedules()]

    def _schedules_changed(self) -> None:
        """A schedule may be due earlier now."""


def _new_schedule(
    order: Order, recurrence: Recurrence, *, key: str | None, missed: Missed, overlap: Overlap, codec: Codec, now: int
) -> ScheduleRow:
    """The schedule to be stored, counted from `now`; `ConfigError` for a setting that is none."""
    for what, value, allowed in (("missed", missed, get_args(Missed)), ("overlap", overlap, get_args(Overlap))):
        if value not in allowed:
            raise ConfigError(f"{what} is {value!r}; write one of {', '.join(map(repr, allowed))}")
    if key is None:
        # As the runs will read it: with defaults, and as data where the code is not at hand.
        key = schedule_key(order.name, recurrence, codec.decode(order.input, order.input_type))
    next_at = recurrence.next_after(now, now)
    if next_at is None:
        raise ConfigError(f"{recurrence.to_text()!r} does not come any more before the calendar ends")
    return ScheduleRow(
        key=checked_name(key, "key"),
        workflow=order.name,
        version=order.version,
        input=order.input,
        recurrence=recurrence.to_text(),
        missed=missed,
        overlap=overlap,
        anchor_at=now,
        next_at=next_at,
        created_at=now,
        updated_at=now,
    )
