"""One question, written once, in the SQL of every engine.

A question in queries.json is SQL with holes in braces, because the engines agree on most of SQL but not on the names of
a few functions:

    {count}                 events
    {sum:x} {avg:x}         sum and average of x
    {quantile:x,0.99}       a percentile, approximate where the engine has an approximate one
    {uniq:x}                an approximate number of distinct values
    {minute:x} {hour:x}     a time cut to the minute or hour
    {ts:2026-09-21 12:00:00}  a moment, UTC
    {has:list,'item'}       whether a list contains an item

Gannet weights rows with `sample_rate` by itself. The peers are timed on the plain functions, which is less work for
them; the dialect `check` is DuckDB with the weights written out, and is what Gannet's answers are held against. A
question may replace its text for one dialect under that dialect's name; `null` there means that it cannot be asked.
"""
import re

DIALECTS = ("gannet", "duckdb", "chdb", "polars", "datafusion", "check")
HOLE = re.compile(r"\{(\w+)(?::([^}]*))?\}")


def render(question, dialect):
    """The SQL of a question, or None when it cannot be asked in this dialect."""
    if dialect in question:
        return question[dialect]
    weighted = dialect == "check" and question.get("weighted", False)

    def fill(hole):
        name, argument = hole.group(1), hole.group(2)
        return FILL[name](argument, dialect, weighted)

    return HOLE.sub(fill, question["sql"])


def count(_, dialect, weighted):
    return "sum(sample_rate)" if weighted else "count(*)"


def total(x, dialect, weighted):
    return f"sum({x} * sample_rate)" if weighted else f"sum({x})"


def average(x, dialect, weighted):
    if not weighted:
        return f"avg({x})"
    return f"sum({x} * sample_rate)::double / sum(case when {x} is not null then sample_rate end)"


def quantile(arguments, dialect, weighted):
    x, fraction = arguments.rsplit(",", 1)
    if weighted:
        raise ValueError("a weighted percentile has no short form: write the question's `check` out")
    return {
        "duckdb": f"approx_quantile({x}, {fraction})",
        "chdb": f"quantileTDigest({fraction})({x})",
        "polars": f"quantile_cont({x}, {fraction})",
        "check": f"quantile_disc({x}, {fraction})",
    }.get(dialect, f"approx_percentile_cont({x}, {fraction})")


def distinct(x, dialect, _):
    # Polars has no approximate form in SQL, and an exact answer is the one to check against.
    return {
        "duckdb": f"approx_count_distinct({x})",
        "chdb": f"uniqCombined({x})",
        "polars": f"count(distinct {x})",
        "check": f"count(distinct {x})",
    }.get(dialect, f"approx_distinct({x})")


def cut(unit):
    def fill(x, dialect, _):
        if dialect == "chdb":
            return f"toStartOf{unit.capitalize()}({x})"
        return f"date_trunc('{unit}', {x})"

    return fill


def moment(text, dialect, _):
    if dialect == "chdb":
        return f"toDateTime64('{text}', 9, 'UTC')"
    if dialect in ("gannet", "datafusion"):
        return f"'{text.replace(' ', 'T')}Z'"
    return f"timestamp '{text}'" if dialect != "polars" else f"cast('{text}' as timestamp)"


def contains(arguments, dialect, _):
    name = {"gannet": "contains_any", "chdb": "has", "polars": "array_contains", "datafusion": "array_has"}
    return f"{name.get(dialect, 'list_contains')}({arguments})"


FILL = {
    "count": count,
    "sum": total,
    "avg": average,
    "quantile": quantile,
    "uniq": distinct,
    "minute": cut("minute"),
    "hour": cut("hour"),
    "ts": moment,
    "has": contains,
}
