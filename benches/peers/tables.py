"""Makes the tables of the comparison: the same rows for the same number of rows, on every machine.

    tables.py ROWS DIRECTORY

writes events, logs, metrics and spans as Parquet, and up to a million events as NDJSON. `events` has ROWS rows, the
others a quarter of that. Each table covers one day. What is drawn follows what such tables look like in production:
few values are frequent and many are rare, times arrive a little out of order, failures are slower, and some columns
are mostly absent. Nobody should be able to do well on all four by knowing one.
"""
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

START_MS = 1_789_948_800_000  # 2026-09-21 00:00:00 UTC
DAY_MS = 86_400_000
STEP = 500_000
NDJSON_ROWS_MAX = 1_000_000
# Planted once in each table that has such a column, a good third into it, so that there is something to find.
NEEDLE = "7b9e01c4d2a85f3360ad91e4c07b25f8"
NEEDLE_UUID = "7b9e01c4-d2a8-4f33-a0ad-91e4c07b25f8"

# How peers with a choice are to keep a column: a category is a string with few distinct values.
SHAPES = {
    "events": dict(
        time="time", service="category", endpoint="category", host="category", region="category",
        country="category", build="category", method="category", status="int", latency_us="int", bytes="int?",
        cpu_ms="float", cache_hit="bool", user_id="int", client_ip="text", error="category?", url="text",
        trace_id="text", tags="categories", sample_rate="int",
    ),
    "logs": dict(
        time="time", level="category", logger="category", host="category", thread="int", line="int",
        message="text", request_id="text", user_id="int?",
    ),
    "metrics": dict(
        time="time", host="category", region="category", role="category", cpu_user="float", cpu_system="float",
        cpu_wait="float?", load_1m="float", load_15m="float", memory_used="int", memory_cached="int",
        swap_used="int", disk_read="int", disk_written="int", disk_full="float", net_received="int", net_sent="int",
        net_dropped="int", connections="int", processes="int", temperature="int?", throttled="bool",
        fan_rpm="int?", uptime_s="int", clock_skew_ns="int", build="category",
    ),
    "spans": dict(
        time="time", trace_id="text", span_id="text", parent_id="text?", service="category", operation="category",
        kind="category", duration_ns="int", status="category", http_status="int?", db_statement="text?",
        attempts="int", cold="bool",
    ),
}


class Draw:
    """Columns of random values for one step of rows."""

    def __init__(self, rng, first, count, total):
        self.rng, self.first, self.count, self.total = rng, first, count, total

    def ranks(self, values, exponent):
        """Indices below `values`; index i is drawn in proportion to 1 / (i + 1) ** exponent."""
        weights = np.arange(1, values + 1, dtype=float) ** -exponent
        edges = np.cumsum(weights / weights.sum())
        return np.searchsorted(edges, self.rng.random(self.count)).clip(0, values - 1)

    def below(self, limit):
        return self.rng.integers(0, limit, self.count)

    def chance(self, probability):
        return self.rng.random(self.count) < probability

    def lognormal(self, mean, sigma):
        return np.exp(self.rng.normal(mean, sigma, self.count))

    def times(self, late_ms):
        row = self.first + np.arange(self.count)
        at = START_MS + DAY_MS * row // self.total + self.rng.integers(-late_ms, late_ms + 1, self.count)
        return pa.array(at.clip(START_MS, START_MS + DAY_MS - 1) * 1_000_000, pa.timestamp("ns", "UTC"))

    def hexes(self, digits):
        pool = np.frombuffer(b"0123456789abcdef", np.uint8)
        return texts(pool[self.rng.integers(0, 16, (self.count, digits), np.uint8)])

    def uuids(self):
        shape = np.full((self.count, 36), ord("-"), np.uint8)
        digits = [i for i in range(36) if i not in (8, 13, 18, 23)]
        pool = np.frombuffer(b"0123456789abcdef", np.uint8)
        shape[:, digits] = pool[self.rng.integers(0, 16, (self.count, 32), np.uint8)]
        shape[:, 14] = ord("4")
        shape[:, 19] = pool[8 + self.rng.integers(0, 4, self.count)]
        return texts(shape)

    def plant(self, array, value):
        """Puts `value` into the row a good third into the table."""
        at = self.total * 37 // 100 - self.first
        if not 0 <= at < self.count:
            return array
        return pa.concat_arrays([array[:at], pa.array([value], array.type), array[at + 1 :]])


def texts(letters):
    """Rows of letters as strings of one length."""
    count, width = letters.shape
    offsets = np.arange(count + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(letters)))


def pick(values, indices, absent=None):
    indices = pa.array(indices.astype(np.int32), mask=absent)
    return pc.take(pa.array(values, pa.string()), indices)


def join(*parts):
    """Strings put together row by row; numbers are written out."""
    parts = [pc.cast(pa.array(p), pa.string()) if isinstance(p, np.ndarray) else p for p in parts]
    return pc.binary_join_element_wise(*parts, "")


SERVICES = (
    "gateway checkout cart search feed profile auth ads media chat notify billing ranking graph photos video geo mail "
    "push sync config edge session quota audit export import batch cron crawl spam trust login share story group page "
    "live pricing stock"
).split()
REGIONS = "us-east us-west eu-central eu-west ap-south ap-northeast sa-east af-south".split()
ENDPOINTS = [
    f"/api/v{version}/{thing}/{verb}"
    for version in (1, 2)
    for thing in "users items orders cart feed photos videos likes comments friends groups pages messages payments "
    "sessions search events ads config health".split()
    for verb in "get list create update delete count watch export import batch".split()
]
HOSTS = [f"{role}-{site}-{i:03d}" for role in ("web", "app", "db", "cache") for site in ("ash", "fra", "sin", "gru") for i in range(120)]
SERVERS = HOSTS[::4]  # 120 of each role
COUNTRIES = [a + b for a in "ABCDEFGHIJKLM" for b in "CEGIKMOQSUWYAZN"]
BUILDS = [f"2026.{week}.{i}-{(week * 7919 + i * 104729) % 0xFFFFFF:06x}" for week in range(1, 39) for i in range(6)]
METHODS = "GET POST PUT DELETE PATCH".split()
FAILURES = [
    f"{kind}: {why}"
    for kind in "Timeout ConnectionReset QuotaExceeded PermissionDenied NotFound Internal".split()
    for why in ("upstream did not answer", "peer closed the connection", "limit of tenant reached", "token expired", "no such object")
]
TAGS = [f"{key}:{value}" for key in ("experiment", "tier", "canary", "device", "os") for value in range(10)]
STATUSES = np.array([201, 204, 301, 304, 400, 401, 403, 404, 429, 500, 502, 503, 504])
STATUS_WEIGHTS = [0.12, 0.08, 0.06, 0.16, 0.10, 0.06, 0.05, 0.20, 0.05, 0.05, 0.03, 0.03, 0.01]


def events(draw):
    """Requests: many short categories, a few long texts, and weights."""
    n, rng = draw.count, draw.rng
    service = draw.ranks(len(SERVICES), 1.1)
    endpoint = (draw.ranks(len(ENDPOINTS), 1.05) + service * 7) % len(ENDPOINTS)
    status = np.where(draw.chance(0.93), 200, rng.choice(STATUSES, n, p=STATUS_WEIGHTS))
    latency = draw.lognormal(8.2, 0.9) * np.exp(0.02 * service) * np.where(status >= 500, 4, 1)
    address = (draw.ranks(200_000, 0.7).astype(np.uint32) * np.uint32(2_654_435_761)).view(np.uint8).reshape(-1, 4)
    item = draw.below(5_000_000)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 4, n))]).astype(np.int32)
    tag = pc.take(pa.array(TAGS), pa.array(rng.integers(0, len(TAGS), offsets[-1])))
    site = pick(SERVICES, service)
    return dict(
        time=draw.times(1500), service=join("svc-", site), endpoint=pick(ENDPOINTS, endpoint),
        host=pick(HOSTS, draw.below(len(HOSTS))), region=pick(REGIONS, draw.ranks(8, 0.8)),
        country=pick(COUNTRIES, draw.ranks(len(COUNTRIES), 1.0)),
        build=pick(BUILDS, len(BUILDS) - 1 - draw.ranks(30, 1.0)), method=pick(METHODS, draw.ranks(5, 1.5)),
        status=pa.array(status), latency_us=pa.array(latency.astype(np.int64)),
        bytes=pa.array(draw.lognormal(7.5, 1.6).astype(np.int64), mask=draw.chance(0.3)),
        cpu_ms=pa.array(np.round(rng.gamma(2.0, 3.0, n), 3)), cache_hit=pa.array(draw.chance(0.62)),
        user_id=pa.array(draw.ranks(2_000_000, 0.8) * 48_271 % 2_147_483_647),
        client_ip=join(address[:, 0], ".", address[:, 1], ".", address[:, 2], ".", address[:, 3]),
        error=pick(FAILURES, draw.below(len(FAILURES)), status < 400),
        url=join("https://www.example.com", pick(ENDPOINTS, endpoint), "?item=", item, "&page=", item % 17, "&src=", site),
        trace_id=draw.plant(draw.hexes(32), NEEDLE), tags=pa.ListArray.from_arrays(pa.array(offsets), tag),
        sample_rate=pa.array(np.where(status >= 500, 1, rng.choice([1, 10, 100], n, p=[0.2, 0.5, 0.3]))),
    )


LOGGERS = [f"{area}.{part}" for area in "http db cache queue auth billing mail search".split() for part in "client server pool retry codec health".split()]
LEVELS = "INFO DEBUG WARN ERROR FATAL".split()


def messages(draw):
    """Log messages: twelve sentences with numbers, addresses and names in them."""
    a, b = draw.below(1_000_000), draw.below(60_000)
    name, path = pick(SERVICES, draw.ranks(40, 1.0)), pick(ENDPOINTS, draw.ranks(len(ENDPOINTS), 1.0))
    short = draw.hexes(8)
    sentences = [
        join("request ", path, " finished in ", b, " us"),
        join("accepted connection from 10.", b % 256, ".", a % 256, ".", (a + b) % 256, " port ", b),
        join("cache miss for key ", name, ":", a, ", loading"),
        join("user ", a, " logged in from session ", short),
        join("query took ", b, " us, ", a % 5000, " rows, plan ", short),
        join("retrying call to ", name, " after ", b % 900, " ms, attempt ", a % 5),
        join("call to ", name, " timed out after ", b, " ms"),
        join("pool ", name, " has ", a % 200, " of 200 connections in use"),
        join("wrote ", a, " bytes to /var/lib/", name, "/segment-", short, ".dat"),
        join("job ", short, " moved from queue ", name, " to done"),
        join("token of tenant ", a % 900, " expires in ", b, " s"),
        join("cannot parse header of ", path, ": unexpected byte 0x", short, " at ", a % 4096),
    ]
    choice = pa.array(draw.ranks(len(sentences), 0.9).astype(np.int64))
    return pc.choose(choice, *sentences)


def logs(draw):
    """Log lines: a long message, identifiers that are all different, and few numbers."""
    return dict(
        time=draw.times(400), level=pick(LEVELS, draw.ranks(5, 2.0)), logger=pick(LOGGERS, draw.ranks(len(LOGGERS), 1.2)),
        host=pick(HOSTS, draw.below(len(HOSTS))), thread=pa.array(draw.below(64)), line=pa.array(draw.ranks(3000, 1.1)),
        message=messages(draw), request_id=draw.plant(draw.uuids(), NEEDLE_UUID),
        user_id=pa.array(draw.ranks(300_000, 0.9), mask=draw.chance(0.6)),
    )


def metrics(draw):
    """Measurements of 480 hosts in turn: many columns, counters that only grow, floats with and without digits."""
    n, rng = draw.count, draw.rng
    row = draw.first + np.arange(n)
    host, tick = row % len(SERVERS), row // len(SERVERS)
    seconds = row * 86_400 // draw.total
    wave = 50 + 35 * np.sin(seconds / 9_000 + host)
    user = (wave + rng.normal(0, 6, n)).clip(0, 100)
    return dict(
        time=pa.array((START_MS + DAY_MS * row // draw.total) * 1_000_000, pa.timestamp("ns", "UTC")),
        host=pick(SERVERS, host), region=pick(REGIONS, host % 8), role=pick(["web", "app", "db", "cache"], host // 120),
        cpu_user=pa.array(np.round(user, 1)), cpu_system=pa.array(np.round(user * 0.2 + rng.random(n), 2)),
        cpu_wait=pa.array(np.round(rng.gamma(1.0, 2.0, n), 2), mask=host // 120 != 2),
        load_1m=pa.array(user / 12 + rng.random(n)), load_15m=pa.array(np.round(wave / 12, 2)),
        memory_used=pa.array(((wave + 20) * 2**28).astype(np.int64) // 4096 * 4096),
        memory_cached=pa.array(rng.integers(2**30, 2**34, n) // 4096 * 4096),
        swap_used=pa.array(np.where(draw.chance(0.97), 0, rng.integers(0, 2**30, n))),
        disk_read=pa.array(tick * 7_000_000 + host * 10**9 + draw.below(1_000_000)),
        disk_written=pa.array(tick * 3_000_000 + host * 10**8 + draw.below(500_000)),
        disk_full=pa.array(np.round(0.3 + 0.5 * row / draw.total + host / 5000, 4)),
        net_received=pa.array(tick * 90_000_000 + host * 10**10 + draw.below(9_000_000)),
        net_sent=pa.array(tick * 60_000_000 + host * 10**10 + draw.below(9_000_000)),
        net_dropped=pa.array(tick // 50 + host), connections=pa.array(rng.poisson(400, n)),
        processes=pa.array(180 + host % 40 + draw.below(6)),
        temperature=pa.array((40 + wave / 3 + rng.normal(0, 2, n)).astype(np.int64), mask=host % 5 == 0),
        throttled=pa.array(user > 97), fan_rpm=pa.array(1200 + 10 * draw.below(300), mask=host % 3 == 0),
        uptime_s=pa.array(seconds + host * 86_400), clock_skew_ns=pa.array(rng.normal(0, 40_000, n).astype(np.int64)),
        build=pick(BUILDS[-12:], (host * 7 + seconds // 20_000) % 12),
    )


KINDS = "server client internal producer consumer".split()
OPERATIONS = [f"{verb} {thing}" for verb in ("GET", "POST", "select", "insert", "publish", "render") for thing in "order user item price stock page token image route event".split()]


def spans(draw):
    """Spans of traces of eight: identifiers that repeat, durations, and statements that are mostly absent."""
    n, rng = draw.count, draw.rng
    operation = draw.ranks(len(OPERATIONS), 0.9)
    database = (operation // 10 == 2) | (operation // 10 == 3)
    failed = draw.chance(0.012)
    group = np.repeat(np.arange(n // 8 + 1), 8)[:n]
    few = Draw(rng, draw.first // 8, n // 8 + 1, draw.total // 8)
    traces = few.plant(few.hexes(32), NEEDLE)
    table = pick("orders users items prices stock pages".split(), draw.ranks(6, 1.0))
    statement = join("select id, state, total from ", table, " where tenant = ", draw.below(900), " and id = ", draw.below(10_000_000))
    return dict(
        time=draw.times(900), trace_id=pc.take(traces, pa.array(group)), span_id=draw.hexes(16),
        parent_id=pc.if_else(pa.array(np.arange(n) % 8 == 0), pa.scalar(None, pa.string()), draw.hexes(16)),
        service=pick(SERVICES, draw.ranks(40, 0.9)), operation=pick(OPERATIONS, operation), kind=pick(KINDS, draw.ranks(5, 0.8)),
        duration_ns=pa.array((draw.lognormal(13.5, 1.3) * (1 + operation / 20)).astype(np.int64)),
        status=pick(["ok", "error"], failed.astype(int)),
        http_status=pa.array(np.where(failed, 503, 200), mask=operation >= 20),
        db_statement=pc.if_else(pa.array(database), statement, pa.scalar(None, pa.string())),
        attempts=pa.array(1 + draw.ranks(4, 3.0)), cold=pa.array(draw.chance(0.02)),
    )


MAKERS = dict(events=events, logs=logs, metrics=metrics, spans=spans)


def write(name, rows, path):
    rng = np.random.default_rng(list(name.encode()))
    writer = None
    for first in range(0, rows, STEP):
        table = pa.table(MAKERS[name](Draw(rng, first, min(STEP, rows - first), rows)))
        if list(SHAPES[name]) != table.column_names:
            raise ValueError(f"the shape of {name} does not say what is made")
        writer = writer or pq.ParquetWriter(path + ".part", table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()
    os.replace(path + ".part", path)


def write_ndjson(source, rows, path):
    """The first events as lines of JSON, as an agent would post them: absent values are left out."""
    done = 0
    with open(path + ".part", "w") as out:
        for batch in pq.ParquetFile(source).iter_batches(10_000):
            columns = {name: batch.column(name).to_pylist() for name in batch.schema.names if name != "time"}
            times = pc.strftime(batch.column("time").cast(pa.timestamp("ms", "UTC")), "%Y-%m-%dT%H:%M:%SZ").to_pylist()
            for row in range(min(batch.num_rows, rows - done)):
                values = {name: values[row] for name, values in columns.items() if values[row] is not None}
                out.write(json.dumps({"time": times[row], **values}, separators=(",", ":")) + "\n")
            done += batch.num_rows
            if done >= rows:
                break
    os.replace(path + ".part", path)


def main():
    rows, directory = int(sys.argv[1]), sys.argv[2]
    os.makedirs(directory, exist_ok=True)
    for name in MAKERS:
        path = os.path.join(directory, f"{name}.parquet")
        if not os.path.exists(path):
            print(f"making {name}", file=sys.stderr, flush=True)
            write(name, rows if name == "events" else max(rows // 4, 1000), path)
    lines = os.path.join(directory, "events.ndjson")
    if not os.path.exists(lines):
        print("making events.ndjson", file=sys.stderr, flush=True)
        write_ndjson(os.path.join(directory, "events.parquet"), min(rows, NDJSON_ROWS_MAX), lines)


if __name__ == "__main__":
    main()
