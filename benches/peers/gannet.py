"""Starts a Gannet of its own, fills it, and asks it over HTTP, as a user would. Standard library only."""
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import time
import urllib.parse

READY = re.compile(r"http://([\d.]+):(\d+)")
# A figure that has not changed for so long will not.
REST_SECONDS = 3
START_SECONDS_MAX = 60
ASK_MS_MAX = 120_000


class Gannet:
    """One leaf and an aggregator, started by `gannet up` on a free port."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.log = open(os.path.join(directory, "up.log"), "w+")
        command = [binary, "up", "--leaves", "1", "--data-dir", os.path.join(directory, "gannet"), "--http", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        self.url = self._wait_for_url()
        parts = urllib.parse.urlparse(self.url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ASK_MS_MAX / 1000 + 10)

    def _wait_for_url(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            with open(self.log.name) as log:
                found = READY.search(log.read())
            if found:
                return found.group(0)
            time.sleep(0.05)
        with open(self.log.name) as log:
            said = log.read()[-2000:]
        self.stop()
        raise RuntimeError(f"gannet did not become ready: {said}")

    def stop(self):
        """Ends it without waiting for a hand-over: its rows are not wanted again."""
        pids = sorted(self.pids(), reverse=True)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.log.close()

    def pids(self):
        """The process that was started and those it started."""
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat") as stat:
                    parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
        ours = {self.process.pid}
        while True:
            more = {pid for pid, parent in parents.items() if parent in ours} - ours
            if not more:
                return ours
            ours |= more

    def resident(self):
        """Bytes in memory of all its processes together."""
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/statm") as statm:
                    total += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except (FileNotFoundError, ProcessLookupError):
                continue
        return total

    def ingest(self, table, path):
        """Loads a file with `gannet ingest`; returns the seconds it took until every row was acknowledged."""
        command = [self.binary, "ingest", table, path, "--server", self.url, "--quiet"]
        started = time.perf_counter()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"gannet ingest {table}: {done.stderr.strip()[-300:]}")
        return time.perf_counter() - started

    def get(self, path):
        self.connection.request("GET", path)
        reply = self.connection.getresponse()
        return json.loads(reply.read())

    def held_bytes(self, table):
        """What Gannet says the rows take, once sealing has come to rest. The aggregator asks its leaves each second, so a
        figure that was there a moment ago says nothing."""
        last, since = None, time.monotonic()
        for _ in range(200):
            held = self.get(f"/v1/tables/{table}")["bytes"]
            if held != last:
                last, since = held, time.monotonic()
            elif time.monotonic() - since > REST_SECONDS:
                break
            time.sleep(0.3)
        return last

    def ask(self, sql):
        body = json.dumps({"sql": sql, "timeout_ms": ASK_MS_MAX})
        self.connection.request("POST", "/v1/query", body, {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        answer = json.loads(reply.read())
        if reply.status != 200:
            raise RuntimeError(json.dumps(answer)[:300])
        if answer["completeness"]["ratio"] != 1:
            raise RuntimeError(f"incomplete: {json.dumps(answer['completeness'])[:300]}")
        return answer

    def timed(self, sql, runs):
        """The answer, and the seconds of each run from the question to the parsed answer."""
        answer, seconds = self.ask(sql), []
        for _ in range(runs):
            started = time.perf_counter()
            self.ask(sql)
            seconds.append(time.perf_counter() - started)
        return answer, dict(seconds=statistics.median(seconds), best=min(seconds), rows=len(answer["rows"]))


def build(repository):
    """Builds the release binary and returns where it is."""
    command = ["cargo", "build", "--release", "-p", "gannet", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, text=True, check=True)
    made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [line["executable"] for line in made if line.get("executable")][-1]
