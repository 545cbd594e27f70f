"""A purchase that waits for somebody's approval: for days if need be, in no process at all.

    python examples/approval.py ask "a chair" 120
    python examples/approval.py answer "a chair" yes anna
    python examples/approval.py work

The first starts a run, which waits; the process ends. The second is another process: it sends an event, and could do so
without the code of the workflow. The third goes on with whatever is due. Without an answer, a `work` after one day
reminds, and one after two days gives up.
"""

import sys
from dataclasses import dataclass

import anyio

from reflow import Client, Engine, Event, Flow, SQLiteStorage, WaitTimeoutError, step, wait_event, workflow


@dataclass
class Approval:
    approved: bool
    by: str


# Declared once, for both sides: what does not fit is refused to the sender.
approval = Event("approval", Approval)


async def mail(to: str, text: str) -> None:
    print(f"mail to {to}: {text}")


async def place_order(item: str) -> None:
    print(f"ordered {item}")


def answer_of(item: str) -> Flow[Approval]:
    """The answer; after a day we remind, after two we give up."""
    yield step(mail, "boss", f"may we buy {item}?")
    try:
        return (yield from wait_event(approval, timeout="1d"))
    except WaitTimeoutError:
        yield step(mail, "boss", f"{item}: still waiting")
    try:
        return (yield from wait_event(approval, timeout="1d"))
    except WaitTimeoutError:
        return Approval(False, "nobody")


@workflow
def purchase(item: str, euros: int) -> Flow[str]:
    # Small things need no approval. `yield from` a helper: it may wait as well.
    if euros >= 100:
        answer = yield from answer_of(item)
        if not answer.approved:
            return f"{item}: refused by {answer.by}"
    yield step(place_order, item)
    return f"{item}: done"


async def ask(item: str, euros: int) -> None:
    async with Engine(SQLiteStorage("approval.db"), [purchase]) as engine:
        run = await engine.enqueue(purchase(item, euros), run_id=f"purchase: {item}")
        await engine.drain()
        print(f"{run.run_id} is {(await run.info()).status}")


async def answer(item: str, approved: bool, by: str) -> None:
    async with Client(SQLiteStorage("approval.db")) as client:
        # The id makes it safe to send twice.
        sent = await client.send_event(f"purchase: {item}", approval, Approval(approved, by), event_id=by)
        print("sent" if sent else "nobody asks for that (any more)")


async def work() -> None:
    async with Engine(SQLiteStorage("approval.db"), [purchase]) as engine:
        await engine.drain()
        for run in (await engine.list_runs(workflow="purchase")).runs:
            info = await engine.get_run(run.run_id)
            print(f"{run.run_id} is {run.status}: {info and info.output}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ask", item, euros]:
            anyio.run(ask, item, int(euros))
        case ["answer", item, ("yes" | "no") as word, by]:
            anyio.run(answer, item, word == "yes", by)
        case ["work"]:
            anyio.run(work)
        case _:
            sys.exit(__doc__)
