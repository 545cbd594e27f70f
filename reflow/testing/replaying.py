"""Recorded runs against today's code: would it still do what it did?

    transcript = await record(await client.handle(run_id))      # of any run, in any storage
    path.write_text(str(transcript))                            # one line for each entry: commit it, diff it
    assert_replays(signup, Transcript.parse(path.read_text()))

Nothing is performed: no step runs. A run that had ended must end in the same way, one that had not must get as far.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from difflib import unified_diff
from typing import Any

from msgspec.structs import replace

from reflow import (
    Codec,
    ConfigError,
    Failure,
    NonDeterminismError,
    ReflowError,
    Run,
    RunNotFoundError,
    RunStatus,
    SerializationError,
    StorageAdapter,
    Workflow,
)
from reflow._core.failure import capture
from reflow._core.journal import CANCEL, Entry, Timer
from reflow._core.location import location_of
from reflow._core.program import Outcome
from reflow._core.replay import Replay
from reflow._core.transcript import CODEC, Transcript
from reflow.codec import MsgpackCodec

__all__ = ["assert_replays", "difference", "record", "transcript_of"]

# Errors that are not the body's own: the engine ended the run with them, so replay need not come to the same end.
_OF_THE_ENGINE = {"poison", "misuse", "serialization"}


# ---- recording -------------------------------------------------------------------------------------------------------


async def record(run: Run[Any]) -> Transcript:
    """The transcript of a run as it is now, ended or not; `RunNotFoundError` when it is gone."""
    client = run._client  # pyright: ignore[reportPrivateUsage]
    return await transcript_of(run.run_id, client._storage, client._codec)  # pyright: ignore[reportPrivateUsage]


async def transcript_of(run_id: str, storage: StorageAdapter, codec: Codec) -> Transcript:
    """The transcript of a run in `storage`, where values are written with `codec`."""
    row = await storage.get_run(run_id)
    if row is None:
        raise RunNotFoundError(run_id)
    journal = await storage.get_journal(run_id)
    return Transcript(
        workflow=row.workflow,
        version=row.version,
        rules=row.rules,
        run_id=row.run_id,
        generation=row.generation,
        status=row.status,
        input=_value(row.input, codec),
        output=None if row.output is None else _value(row.output, codec),
        error=None if row.error is None else _failure(row.error, codec),
        entries=tuple(_entry(entry, codec) for entry in journal.entries),
        timers=tuple(_timer(timer, codec) for timer in journal.timers),
    )


def _entry(entry: Entry, codec: Codec) -> Entry:
    payload = entry.payload and (_failure if entry.failed else _value)(entry.payload, codec)
    return replace(entry, payload=payload, started_at=0, recorded_at=0)


def _timer(timer: Timer, codec: Codec) -> Timer:
    failure = None if timer.failure is None else _failure(timer.failure, codec)
    return replace(timer, started_at=0, failure=failure)


def _value(data: bytes, codec: Codec) -> bytes:
    return data if isinstance(codec, MsgpackCodec) else CODEC.encode(codec.decode(data, Any))


def _failure(data: bytes, codec: Codec) -> bytes:
    return CODEC.encode(_without_traceback(codec.decode(data, Failure)))


def _without_traceback(failure: Failure) -> Failure:
    """Lines of code move, and paths differ from machine to machine."""
    return replace(failure, traceback="", causes=tuple(map(_without_traceback, failure.causes)))


# ---- replaying -------------------------------------------------------------------------------------------------------


def assert_replays(workflow: Workflow[..., Any] | Iterable[Workflow[..., Any]], transcript: Transcript) -> None:
    """Replay a transcript against the code of `workflow`, or of the one of several that it is of.

    Raises `NonDeterminismError` where the code yields something else than what was recorded, or with other arguments:
    it names position, recorded and yielded command, file and line. `AssertionError` where all that is the same and the
    run ends in another way. `ConfigError` where the workflow, in this version, is not among those given.
    """
    flow = _workflow_of(workflow, transcript)
    replay = Replay(
        transcript.run_id,
        flow.start(transcript.input, CODEC),
        CODEC,
        transcript.journal,
        workflow=transcript.workflow,
        generation=transcript.generation,
        on_other_arguments=_refuse_other_arguments,
    )
    recorded: Failure | None = None if transcript.error is None else CODEC.decode(transcript.error, Failure)
    try:
        replay.start()
        replay.catch_up()
        for timer in transcript.timers:
            replay.check(timer)
        _compare_ends(replay, transcript, recorded, flow.output_type)
    except ReflowError as error:
        # The same complaint as then, such as a misuse, is what was recorded.
        if recorded is None or recorded.code != error.code or isinstance(error, NonDeterminismError):
            raise
    finally:
        replay.close()


def _workflow_of(
    workflows: Workflow[..., Any] | Iterable[Workflow[..., Any]], transcript: Transcript
) -> Workflow[..., Any]:
    given = [workflows] if isinstance(workflows, Workflow) else list(workflows)
    for workflow in given:
        if (workflow.name, workflow.version) == (transcript.workflow, transcript.version):
            return workflow
    known = ", ".join(f"version {each.version} of {each.name!r}" for each in given) or "nothing"
    raise ConfigError(
        f"the transcript is of version {transcript.version} of {transcript.workflow!r}, and given was {known}"
    )


def _refuse_other_arguments(entry: Entry, location: str) -> None:
    raise NonDeterminismError(entry.position, str(entry), f"{entry} with other arguments", location)


def _compare_ends(replay: Replay, transcript: Transcript, recorded: Failure | None, output_type: Any) -> None:
    # A run that was cancelled before it began does not show it.
    never_began = transcript.status is RunStatus.CANCELLED and all(entry.kind == CANCEL for entry in transcript.entries)
    if never_began or not transcript.status.is_terminal:
        return
    if replay.outcome is not None:
        then, now = _end(transcript, recorded, output_type), _end_now(replay.outcome, output_type)
        if then != now and not (recorded and recorded.code in _OF_THE_ENGINE):
            raise AssertionError(
                f"the code replays run {transcript.run_id!r} of {transcript.workflow!r}, and ends in another way: "
                f"recorded {then}, now {now}"
            )
    elif not (recorded and recorded.code in _OF_THE_ENGINE):
        node = next(iter(replay.open.values()))
        raise NonDeterminismError(node.position, f"that the run {transcript.status}", str(node), location_of(node))


def _end(transcript: Transcript, recorded: Failure | None, output_type: Any) -> str:
    if recorded is not None:
        return f"{RunStatus.FAILED} with {recorded}"
    if transcript.output is not None:
        return f"{RunStatus.COMPLETED} with {_plain(transcript.output, output_type)!r}"
    return str(transcript.status)


def _end_now(outcome: Outcome, output_type: Any) -> str:
    if outcome.error is not None:
        return f"{RunStatus.FAILED} with {capture(outcome.error)}"
    if outcome.is_cancelled:
        return str(RunStatus.CANCELLED)
    if outcome.continued is not None:
        return f"continued as {outcome.continued!r}"
    return f"{RunStatus.COMPLETED} with {_plain(CODEC.encode(outcome.value), output_type)!r}"


def _plain(output: bytes, output_type: Any) -> Any:
    """An output as plain data, by way of its type: so what was stored as JSON has the keys that it had."""
    with suppress(SerializationError, ConfigError):
        output = CODEC.encode(CODEC.decode(output, output_type))
    return CODEC.decode(output, Any)


def difference(recorded: Transcript, now: Transcript) -> str:
    """The lines in which two transcripts differ, as a diff; empty where they are the same."""
    then, today = (str(transcript).split("\n") for transcript in (recorded, now))
    return "\n".join(unified_diff(then, today, "recorded", "now", lineterm="", n=1))
