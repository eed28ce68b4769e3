#!/usr/bin/env python3
"""Posts events to Gannet and asks about them, with nothing but the standard library.

    python3 events.py http://127.0.0.1:7700
    GANNET_TOKEN_FILE=me.token SSL_CERT_FILE=ca.pem python3 events.py https://10.0.0.5:7700

Every request names its producer and number, so that it may be sent as often as needed and counts once. An answer says
how complete it is: a count is only as good as that.
"""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

WAIT_FIRST_SECONDS = 0.1
WAIT_MAX_SECONDS = 30.0
# The server asks to come back, or failed on the way.
WORTH_TRYING_AGAIN = {408, 429, 500, 502, 503, 504, 507}


def headers(content_type):
    """What goes with every request; the token only where there is one."""
    found = {"Content-Type": content_type}
    if "GANNET_TOKEN_FILE" in os.environ:
        with open(os.environ["GANNET_TOKEN_FILE"], encoding="ascii") as file:
            found["Authorization"] = f"Bearer {file.read().strip()}"
    return found


class Producer:
    """Sends events under a name of its own and ascending numbers.

    A program that may crash keeps name, number and lines of a request before it sends it, and sends the same again.
    """

    def __init__(self, server, name=None, first=1):
        self.server = server.rstrip("/")
        self.name = name or f"python-{uuid.uuid4()}"
        self.next = first

    def post(self, table, events, patience_seconds=120.0):
        """Posts a list of dicts until it is known what became of them. The reply tells accepted and rejected rows."""
        number, self.next = self.next, self.next + 1
        body = "".join(json.dumps(event) + "\n" for event in events).encode()
        request = urllib.request.Request(
            f"{self.server}/v1/events/{urllib.parse.quote(table, safe='')}",
            data=body,
            headers={
                **headers("application/x-ndjson"),
                "Gannet-Producer": self.name,
                "Gannet-Sequence": str(number),
            },
        )
        deadline = time.monotonic() + patience_seconds
        wait_max = WAIT_FIRST_SECONDS
        while True:
            asked = 0.0
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                if error.code not in WORTH_TRYING_AGAIN:
                    raise RuntimeError(f"{error.code}: {error.read().decode(errors='replace')}") from error
                asked = min(float(error.headers.get("Retry-After") or 0), WAIT_MAX_SECONDS)
                failure = error
            except OSError as error:
                # No connection, or the reply was lost: the same number may come again.
                failure = error
            wait = asked + random.uniform(0, wait_max)
            wait_max = min(wait_max * 2, WAIT_MAX_SECONDS)
            if time.monotonic() + wait > deadline:
                raise RuntimeError(f"gave up: {failure}") from failure
            time.sleep(wait)


def query(server, sql):
    """The rows as dicts, and the completeness of the answer."""
    request = urllib.request.Request(
        f"{server.rstrip('/')}/v1/query",
        data=json.dumps({"sql": sql}).encode(),
        headers=headers("application/json"),
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer = json.load(reply)
    names = [column["name"] for column in answer["columns"]]
    return [dict(zip(names, row)) for row in answer["rows"]], answer["completeness"]


def main():
    server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7700"
    producer = Producer(server)
    events = [{"time": time.time(), "service": "cart", "duration_ms": number * 1.5} for number in range(10)]
    reply = producer.post("python_events", events)
    print(f"accepted {reply['accepted']}, rejected {len(reply['rejected'])}, durability {reply['durability']}")

    rows, completeness = query(server, "select service, count(*) as n from python_events group by service")
    for row in rows:
        print(f"{row['service']}: {row['n']}")
    if completeness["ratio"] != 1:
        print(f"warning: completeness {completeness['ratio']}, missing {completeness['missing']}", file=sys.stderr)
    print(f"leaves {completeness['leaves_answered']} of {completeness['leaves_asked']}")


if __name__ == "__main__":
    main()
