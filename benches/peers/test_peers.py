"""The parts of the comparison that decide what is said: python3 -m unittest discover benches/peers"""
import json
import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import check  # noqa: E402
import report  # noqa: E402
from dialects import DIALECTS, render  # noqa: E402

QUESTIONS = json.loads((pathlib.Path(__file__).parent / "queries.json").read_text())


class Dialects(unittest.TestCase):
    def check(self, sql, expected, **question):
        self.assertEqual({dialect: render({"sql": sql, **question}, dialect) for dialect in expected}, expected)

    def test_holes_are_filled_for_each_engine(self):
        self.check("{uniq:u}", dict(gannet="approx_distinct(u)", chdb="uniqCombined(u)", check="count(distinct u)"))
        self.check("{hour:time}", dict(duckdb="date_trunc('hour', time)", chdb="toStartOfHour(time)"))
        self.check("{quantile:x,0.9}", dict(gannet="approx_percentile_cont(x, 0.9)", polars="quantile_cont(x, 0.9)"))
        self.check("{ts:2026-09-21 12:00:00}", dict(gannet="'2026-09-21T12:00:00Z'", duckdb="timestamp '2026-09-21 12:00:00'"))

    def test_only_the_check_writes_weights_out(self):
        self.check("{count}", dict(gannet="count(*)", duckdb="count(*)", check="sum(sample_rate)"), weighted=True)
        self.check("{sum:x}", dict(polars="sum(x)", check="sum(x)"))

    def test_a_dialect_may_have_its_own_text_or_none(self):
        self.check("a", dict(gannet="a", polars="b", chdb=None), polars="b", chdb=None)

    def test_every_question_can_be_written(self):
        for question in QUESTIONS:
            for dialect in DIALECTS:
                self.assertNotIn("{", render(question, dialect) or "", question["name"])
        self.assertEqual(len({question["name"] for question in QUESTIONS}), len(QUESTIONS))


class Answers(unittest.TestCase):
    def check(self, ours, theirs, expected, columns=("k", "v"), **question):
        self.assertEqual(check.difference(question, list(columns), ours, list(columns), theirs), expected)

    def test_rows_are_compared_by_key(self):
        self.check([["a", 1], ["b", 2]], [["b", 2], ["a", 1]], None, keys=1)
        self.check([["a", 1]], [["a", 2]], "1, expected 2 in ['a', 2]", keys=1)
        self.check([["a", 1]], [], "1 rows, expected 0", keys=1)
        self.check([["a", None]], [["a", 0]], "None, expected 0 in ['a', 0]")

    def test_tolerance_is_for_numbers(self):
        self.check([["a", 1.001]], [["a", 1.0]], None, tolerance=0.01)
        self.check([["a", 1.001]], [["a", 1.0]], "1.001, expected 1.0 in ['a', 1.0]")
        self.check([["a", True]], [["a", False]], "True, expected False in ['a', False]", tolerance=9)

    def test_ties_compare_the_ordering_column(self):
        self.check([["a", 5], ["b", 4]], [["c", 4], ["a", 5]], None, ties="v")
        self.check([["a", 5]], [["a", 4]], "5, expected 4 in [4]", ties="v")

    def test_times_are_one_value_however_written(self):
        self.check([["2026-09-21T00:00:00Z", 1]], [["2026-09-21T00:00:00.000000Z", 1]], None, keys=1)

    def test_columns_may_come_in_another_order(self):
        self.assertIsNone(check.difference({}, ["v", "k"], [[1, "a"]], ["k", "v"], [["a", 1]]))
        self.assertEqual(
            check.fingerprint({}, ["v", "k"], [[1, "a"]]), check.fingerprint({}, ["k", "v"], [["a", 1]])
        )

    def test_a_hash_knows_values_and_not_order(self):
        one = check.fingerprint({}, ["k"], [["a"], ["b"]])
        self.assertEqual(one, check.fingerprint({}, ["k"], [["b"], ["a"]]))
        self.assertNotEqual(one, check.fingerprint({}, ["k"], [["a"], ["c"]]))


class Report(unittest.TestCase):
    FOUND = dict(
        questions=[dict(name="t: a", table="t"), dict(name="t: b", table="t")], date="2026-11-21",
        times={
            "t: a": dict(x=dict(seconds=4.0), y=dict(seconds=8.0), gannet=dict(seconds=1.0)),
            "t: b": dict(x=dict(error="no"), gannet=dict(seconds=1.0)),
        },
    )

    def test_a_ratio_is_against_the_fastest_peer_that_answered(self):
        self.assertEqual(report.ratios(self.FOUND), {"t: a": 4.0})
        self.assertEqual(report.geometric_mean([2, 8]), 4)

    def test_the_plot_is_whole(self):
        self.assertTrue(report.plot(self.FOUND).endswith("</svg>\n"))


if __name__ == "__main__":
    unittest.main()
