"""Two ICE agents of aioice, relay-only, one of which echoes.

Argument: JSON with `server`, `port`, `transport` (udp, tcp or tls), `username` and `password`.
Tells in one line of JSON what was exchanged, and stays until its standard input ends.
"""

import asyncio
import json
import sys
from importlib.metadata import version

import aioice

MESSAGES = 100
# A working pair needs milliseconds; what is lost is not sent again.
PATIENCE_SECS = 10


def payload(nth: int) -> bytes:
    """The payload number `nth`, of many lengths."""
    return bytes([nth + 1]) * (1 + nth * 37 % 900)


def agent(task: dict, controlling: bool) -> aioice.Connection:
    """One agent that gathers no candidate but its relayed one."""
    return aioice.Connection(
        ice_controlling=controlling,
        turn_server=(task["server"], task["port"]),
        turn_username=task["username"],
        turn_password=task["password"],
        turn_transport="udp" if task["transport"] == "udp" else "tcp",
        turn_ssl=task["transport"] == "tls",
        use_ipv6=False,
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def introduce(one: aioice.Connection, two: aioice.Connection) -> None:
    """Gives `two` what signalling would bring from `one`."""
    await one.gather_candidates()
    for candidate in one.local_candidates:
        await two.add_remote_candidate(candidate)
    await two.add_remote_candidate(None)
    two.remote_username, two.remote_password = one.local_username, one.local_password


async def echo(end: aioice.Connection) -> None:
    """Sends everything back."""
    for _ in range(MESSAGES):
        await end.send(await end.recv())


async def exchange(end: aioice.Connection) -> None:
    """Sends each payload and waits for its echo."""
    for nth in range(MESSAGES):
        await end.send(payload(nth))
        answer = await asyncio.wait_for(end.recv(), PATIENCE_SECS)
        if answer != payload(nth):
            raise ValueError(f"payload {nth} differs")


async def main() -> None:
    """The whole conversation."""
    task = json.loads(sys.argv[1])
    one, two = agent(task, True), agent(task, False)
    await introduce(one, two)
    await introduce(two, one)
    await asyncio.gather(one.connect(), two.connect())
    await asyncio.gather(exchange(one), echo(two))
    types = [candidate.type for end in (one, two) for candidate in end.local_candidates]
    tell(event="exchanged", version=version("aioice"), payloads=MESSAGES, candidates=types)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.gather(one.close(), two.close())


def tell(**event: object) -> None:
    """One line for the Rust side."""
    print(json.dumps(event), flush=True)


try:
    asyncio.run(main())
except Exception as error:  # whatever it is, the Rust side must hear of it
    tell(event="failed", text=f"{type(error).__name__}: {error}")
    sys.exit(1)
