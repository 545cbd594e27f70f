"""A signup that survives crashes: typed steps, a retried one, a saga, and a sleep of two weeks.

    python examples/signup.py EMAIL [CENTS]

Run it, stop it while it sleeps, run it again: it goes on. (The two weeks are two seconds here.)
"""

import sys
from dataclasses import dataclass

import reflow
from reflow import Flow, Retry, current_step, sleep, step, workflow


@dataclass
class Receipt:
    account: int
    outcome: str


class CardDeclined(Exception):
    """The bank said no."""


async def create_account(email: str) -> int:
    print(f"created an account for {email}")
    return 4711


def charge_card(account: int, cents: int) -> str:
    key = current_step().idempotency_key
    print(f"charged {cents} cents to {account} (idempotency key {key}, attempt {current_step().attempt})")
    if cents > 10_000:
        raise CardDeclined("over the limit")
    return "ok"


async def close_account(account: int) -> None:
    print(f"closed account {account}")


async def send_mail(email: str, text: str) -> None:
    print(f"mail to {email}: {text}")


@workflow
def signup(email: str, cents: int) -> Flow[Receipt]:
    account = yield from step(create_account, email)
    charge = step(charge_card, account, cents).options(
        retry=Retry(max_attempts=5, initial_delay="200ms", give_up_on=CardDeclined), timeout="10s", raises=CardDeclined
    )
    try:
        yield from charge
    except CardDeclined as error:
        yield from step(close_account, account)
        return Receipt(account, f"declined: {error}")
    yield from sleep("2s")
    yield from step(send_mail, email, "how do you like it so far?")
    return Receipt(account, "done")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    email, cents = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500
    print(reflow.run(signup(email, cents), storage="signup.db", run_id=f"signup:{email}"))
