"""Whether two answers to one question say the same. Standard library only.

Rows are compared by their key columns, floats within the question's tolerance. Where the engines are free in what they
return (rows that tie at a LIMIT), the column that orders them is compared instead.
"""
import datetime
import hashlib
import json
import math
import re

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
EXACT = 1e-9
DIGITS = 9


def plain(value):
    """A time as microseconds, everything else as it is, so that two ways of writing it are one value."""
    if isinstance(value, str) and TIME.fullmatch(value):
        whole, _, fraction = value[:-1].partition(".")
        moment = datetime.datetime.fromisoformat(whole + "+00:00")
        return int(moment.timestamp()) * 1_000_000 + int((fraction + "000000")[:6])
    return [plain(item) for item in value] if isinstance(value, list) else value


def same(ours, theirs, tolerance):
    numbers = (int, float)
    if isinstance(ours, numbers) and isinstance(theirs, numbers) and not isinstance(ours, bool):
        return ours == theirs or math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=1e-12)
    return ours == theirs


def by_key(rows, keys):
    return sorted(rows, key=lambda row: json.dumps(row[:keys]))


def difference(question, columns, rows, their_columns, their_rows):
    """None when the answers agree, else a sentence."""
    if sorted(columns) != sorted(their_columns):
        return f"columns {columns}, expected {their_columns}"
    if len(rows) != len(their_rows):
        return f"{len(rows)} rows, expected {len(their_rows)}"
    # `select *` may list columns in another order, and a table without a schema has an order of its own.
    order = [columns.index(name) for name in their_columns]
    ours = [[plain(row[at]) for at in order] for row in rows]
    theirs = [[plain(value) for value in row] for row in their_rows]
    ties = question.get("ties")
    tolerance = question.get("tolerance", EXACT)
    if ties:
        at = their_columns.index(ties)
        ours, theirs = sorted([row[at]] for row in ours), sorted([row[at]] for row in theirs)
    elif question.get("keys"):
        ours, theirs = by_key(ours, question["keys"]), by_key(theirs, question["keys"])
    for row, expected in zip(ours, theirs):
        for value, wanted in zip(row, expected):
            if not same(value, wanted, tolerance):
                return f"{value!r}, expected {wanted!r} in {str(expected)[:120]}"
    return None


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return [rounded(item) for item in value] if isinstance(value, list) else value


def fingerprint(question, columns, rows):
    """A short hash of an answer: of its rows in no order, or of the ordering column where rows may tie."""
    rows = [[rounded(plain(value)) for value in row] for row in rows]
    if question.get("ties"):
        at = columns.index(question["ties"])
        rows = [[row[at]] for row in rows]
    order = sorted(range(len(columns)), key=columns.__getitem__) if not question.get("ties") else [0]
    lines = sorted(json.dumps([row[at] for at in order]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
