"""Runs one peer in this process: loads each table, asks every question, and prints a line of JSON for each step.

    peers.py PEER DATA QUESTIONS RUNS THREADS SCRATCH [answers]

PEER is duckdb, duckdb-file, chdb-memory, chdb-mergetree, polars or datafusion. A process holds one peer and nothing
else, so that what its memory grows by is that peer's. With `answers`, DuckDB answers the questions in the dialect
`check` instead and the lines hold the rows. A question that fails is a line with `error`; the next one is asked.
"""
import datetime
import decimal
import json
import os
import resource
import statistics
import sys
import time

PEER, DATA, QUESTIONS, RUNS, THREADS, SCRATCH = sys.argv[1:7]
RUNS, THREADS = int(RUNS), int(THREADS)
# Both read the environment when they are imported.
os.environ["POLARS_MAX_THREADS"] = str(THREADS)

from dialects import render  # noqa: E402
from tables import SHAPES  # noqa: E402

# What loading alone needed is given back by then, or never; Gannet has as long.
REST_SECONDS = 3


def say(**line):
    print(json.dumps(line), flush=True)


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def parquet(table):
    return os.path.join(DATA, f"{table}.parquet")


class DuckDb:
    dialect = "duckdb"

    def __init__(self):
        import duckdb

        self.connection = duckdb.connect()
        self.connection.execute(f"set threads = {THREADS}; set timezone = 'UTC'")
        self.file = None
        if PEER == "duckdb-file":
            self.file = os.path.join(SCRATCH, "peer.duckdb")
            self.connection.execute(f"attach '{self.file}' as held; use held")

    def bytes(self):
        # A checkpoint compresses the rows, also those in memory, which makes DuckDB both smaller and faster.
        self.connection.execute("checkpoint")
        if self.file:
            return os.path.getsize(self.file)
        # What the rows themselves take; with no file behind it, the buffer manager holds nothing else that stays.
        return self.connection.execute("select sum(memory_usage_bytes) from duckdb_memory()").fetchone()[0]

    def load(self, table):
        before = self.bytes()
        self.connection.execute(
            f"create table {table} as select * replace (time::timestamptz at time zone 'UTC' as time) "
            f"from read_parquet('{parquet(table)}')"
        )
        return self.bytes() - before

    def load_lines(self, path):
        self.connection.execute(f"create table posted as select * from read_json('{path}', format = 'newline_delimited')")
        return self.connection.execute("select count(*) from posted").fetchone()[0]

    def ask(self, sql):
        return len(self.connection.execute(sql).fetchall())

    def answer(self, sql):
        cursor = self.connection.execute(sql)
        return [column[0] for column in cursor.description], cursor.fetchall()


class ChDb:
    dialect = "chdb"
    TYPES = {
        "time": "DateTime64(9, 'UTC')", "int": "Int64", "float": "Float64", "bool": "Bool", "text": "String",
        "category": "LowCardinality(String)", "category?": "LowCardinality(Nullable(String))",
        "categories": "Array(LowCardinality(String))",
    }

    def __init__(self):
        from chdb import session

        self.session = session.Session()
        self.engine = "Memory" if PEER == "chdb-memory" else "MergeTree order by time"
        self.session.query("create database held engine = Atomic; use held")

    def create(self, name, table):
        kinds = {column: self.TYPES.get(kind) or f"Nullable({self.TYPES[kind[:-1]]})" for column, kind in SHAPES[table].items()}
        columns = ", ".join(f"{column} {kind}" for column, kind in kinds.items())
        self.session.query(f"create table held.{name} ({columns}) engine = {self.engine}")

    def load(self, table):
        self.create(table, table)
        self.session.query(
            f"insert into held.{table} select * from file('{parquet(table)}', Parquet) settings max_threads = {THREADS}"
        )
        if PEER != "chdb-memory":
            self.session.query(f"optimize table held.{table} final")
        size = f"select total_bytes from system.tables where database = 'held' and name = '{table}'"
        return int(self.session.query(size, "TabSeparated").bytes())

    def load_lines(self, path):
        self.create("posted", "events")
        self.session.query(
            f"insert into held.posted select * from file('{path}', JSONEachRow) "
            f"settings max_threads = {THREADS}, date_time_input_format = 'best_effort'"
        )
        return int(self.session.query("select count() from held.posted", "TabSeparated").bytes())

    def ask(self, sql):
        for table in SHAPES:
            sql = sql.replace(f" from {table}", f" from held.{table}")
        return self.session.query(f"{sql} settings max_threads = {THREADS}", "TabSeparated").bytes().count(b"\n")


class Polars:
    dialect = "polars"

    def __init__(self):
        import polars

        self.polars, self.context = polars, polars.SQLContext()

    def load(self, table):
        column = self.polars.col
        kinds = SHAPES[table].items()
        frame = self.polars.read_parquet(parquet(table)).with_columns(
            [column(name).cast(self.polars.Categorical) for name, kind in kinds if kind in ("category", "category?")]
            + [column("time").dt.replace_time_zone(None)]
        )
        self.context.register(table, frame.lazy())
        return frame.estimated_size()

    def load_lines(self, path):
        return self.polars.read_ndjson(path).height

    def ask(self, sql):
        return self.context.execute(sql).collect().height


class DataFusion:
    dialect = "datafusion"

    def __init__(self):
        import datafusion

        config = datafusion.SessionConfig().with_target_partitions(THREADS)
        self.context = datafusion.SessionContext(config)

    def load(self, table):
        import pyarrow.parquet

        categories = [name for name, kind in SHAPES[table].items() if kind in ("category", "category?")]
        held = pyarrow.parquet.read_table(parquet(table), read_dictionary=categories)
        batches = held.to_batches(max_chunksize=65_536)
        share = -(-len(batches) // THREADS)
        parts = [batches[start : start + share] for start in range(0, len(batches), share)]
        self.context.register_record_batches(table, parts)
        return held.nbytes

    def load_lines(self, path):
        frame = self.context.read_json(path, file_extension=".ndjson")
        return sum(batch.num_rows for batch in frame.collect())

    def ask(self, sql):
        return sum(batch.num_rows for batch in self.context.sql(sql).collect())


PEERS = {
    "duckdb": DuckDb, "duckdb-file": DuckDb, "chdb-memory": ChDb, "chdb-mergetree": ChDb,
    "polars": Polars, "datafusion": DataFusion,
}


def plain(value):
    """A value as JSON has it; times as Gannet writes them."""
    if isinstance(value, datetime.datetime):
        return value.isoformat() + "Z"
    return float(value) if isinstance(value, decimal.Decimal) else value


def attempt(what, step, **line):
    try:
        say(**line, **step())
    except Exception as error:  # a peer that cannot do one thing is still asked the others
        say(**line, error=f"{what}: {' '.join(str(error).split())[:200]}")


def load(peer, table):
    before, started = resident(), time.perf_counter()
    held = peer.load(table)
    seconds = time.perf_counter() - started
    time.sleep(REST_SECONDS)
    return dict(seconds=seconds, bytes=held, resident=resident() - before)


def load_lines(peer):
    started = time.perf_counter()
    rows = peer.load_lines(os.path.join(DATA, "events.ndjson"))
    return dict(seconds=time.perf_counter() - started, rows=rows)


def timed(peer, question):
    sql = render(question, peer.dialect)
    if sql is None:
        return dict(error="cannot be asked")
    rows, seconds = peer.ask(sql), []
    for _ in range(RUNS):
        started = time.perf_counter()
        peer.ask(sql)
        seconds.append(time.perf_counter() - started)
    return dict(seconds=statistics.median(seconds), best=min(seconds), rows=rows)


def answered(peer, question):
    columns, rows = peer.answer(render(question, "check"))
    return dict(columns=columns, rows=[[plain(value) for value in row] for row in rows])


def main():
    with open(QUESTIONS) as file:
        questions = json.load(file)
    peer = PEERS[PEER]()
    checking = sys.argv[7:] == ["answers"]
    for table in dict.fromkeys(question["table"] for question in questions):
        attempt("load", lambda: load(peer, table), kind="load", table=table)
        for question in questions:
            if question["table"] == table:
                name = question["name"]
                if checking:
                    attempt("check", lambda: answered(peer, question), kind="answer", name=name)
                else:
                    attempt("ask", lambda: timed(peer, question), kind="time", name=name)
    if not checking:
        attempt("load lines", lambda: load_lines(peer), kind="lines")


if __name__ == "__main__":
    main()
