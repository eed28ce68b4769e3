"""Writes what a comparison found: a Markdown page, and a plot of its ratios as SVG. Standard library only."""
import math
from xml.sax.saxutils import escape


def ms(seconds):
    if seconds is None:
        return "–"
    return f"{seconds * 1e3:.2f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def fastest(times):
    """The name and time of the fastest peer, or nothing."""
    found = [(entry["seconds"], peer) for peer, entry in times.items() if peer != "gannet" and "seconds" in entry]
    return min(found, default=None)


def ratios(found):
    """Fastest peer / Gannet for each question that both answered."""
    out = {}
    for question in found["questions"]:
        times = found["times"].get(question["name"], {})
        best, ours = fastest(times), times.get("gannet", {}).get("seconds")
        if best and ours:
            out[question["name"]] = best[0] / ours
    return out


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def summary(found):
    values = ratios(found)
    if not values:
        return ["No question was answered by both Gannet and a peer."]
    slower = [name for name, value in values.items() if value < 1]
    lines = [
        f"Fastest peer ÷ Gannet, geometric mean over {len(values)} questions: **{geometric_mean(values.values()):.2f}**. "
        "Above 1 Gannet is faster than every peer."
    ]
    for name in dict.fromkeys(question["table"] for question in found["questions"]):
        part = [value for question, value in values.items() if question.startswith(f"{name}:")]
        if part:
            lines.append(f"* `{name}`: geometric mean {geometric_mean(part):.2f}, lowest {min(part):.2f}, {len(part)} questions")
    lines.append("")
    if slower:
        lines.append(f"A peer is faster on {len(slower)}: " + ", ".join(f"{name} ({values[name]:.2f})" for name in slower) + ".")
    else:
        lines.append("No peer is faster on any.")
    return lines


def times_table(found):
    peers = [peer for peer in found["peers"] if peer != "gannet"]
    values, rows = ratios(found), []
    for question in found["questions"]:
        name = question["name"]
        times = found["times"].get(name, {})
        best = fastest(times)
        cells = [ms(times.get(peer, {}).get("seconds")) for peer in peers]
        if best:
            at = peers.index(best[1])
            cells[at] = f"**{cells[at]}**"
        ours = ms(times.get("gannet", {}).get("seconds"))
        ratio = f"{values[name]:.2f}" if name in values else "–"
        rows.append([name, best[1] if best else "–", *cells, ours, ratio, found["checks"].get(name, "–"), found["hashes"].get(name, "–")])
    head = ["question", "fastest peer", *peers, "Gannet", "ratio", "answer", "hash"]
    return ["Milliseconds, median.", "", *table(head, rows)]


def memory_table(found):
    rows = []
    for index, (name, row_count) in enumerate(found["rows"].items()):
        for holder in found["peers"]:
            load = found["loads"].get(holder, {}).get(name, {})
            if "bytes" in load:
                # What a process frees after the first table feeds the next: only the first growth says something.
                resident = f"{load['resident'] / row_count:.1f}" if index == 0 else "–"
                speed = f"{row_count / load['seconds']:,.0f}"
                rows.append([name, holder, f"{load['bytes'] / row_count:.1f}", resident, speed])
    return table(["table", "held by", "bytes a row, as it says", "bytes a row, resident memory", "rows/s from Parquet"], rows)


def lines_table(found):
    rows = [
        [holder, f"{line['rows'] / line['seconds']:,.0f}"]
        for holder, line in found["lines"].items()
        if "seconds" in line
    ]
    return table(["NDJSON", "rows/s"], rows)


def troubles(found):
    lines = [f"* {peer}: {what}" for peer, what in found["failed"].items()]
    for name, times in found["times"].items():
        lines += [f"* {peer}, {name}: {entry['error']}" for peer, entry in times.items() if "error" in entry]
    for peer, line in found["lines"].items():
        if "error" in line:
            lines.append(f"* {peer}, NDJSON: {line['error']}")
    for peer, loads in found["loads"].items():
        lines += [f"* {peer}, {name}: {load['error']}" for name, load in loads.items() if "error" in load]
    return ["", "## What did not run", "", *lines] if lines else []


def markdown(found, plot_name):
    facts = found["machine"]
    about = [[what, str(value)] for what, value in facts.items()]
    return "\n".join(
        [
            f"# Gannet and its peers, {found['date']}",
            "",
            f"Written by `{found['command']}`.",
            "",
            f"Everything ran in one go on {found['threads']} threads, one engine after the other, each in a process of its own: "
            f"one warm-up, then the median of {found['runs']} runs. Peers run inside their process; Gannet is asked over HTTP, from question to "
            "parsed answer. Peers answer without weights, which is less work; Gannet applies `sample_rate` to `events`. "
            "“agrees” says that Gannet's answer is DuckDB's with the weights written out, approximate ones within the stated error.",
            "",
            *summary(found),
            "",
            f"![Ratio of each question]({plot_name})",
            "",
            "## Questions",
            "",
            *times_table(found),
            "",
            "## Memory and loading",
            "",
            "What an engine says its rows take, and what its process grew by: the second holds what loading left behind for good, and for Gannet all of its processes.",
            "duckdb-file keeps its rows in a file, whose size is its first figure.",
            "",
            *memory_table(found),
            "",
            *lines_table(found),
            "",
            "## Machine and versions",
            "",
            *table(["what", "value"], about),
            *troubles(found),
            "",
        ]
    )


BAR, GAP, LEFT, WIDTH, TOP = 14, 5, 300, 560, 64


def plot(found):
    """One bar for each question: right of the line at 1 Gannet is faster than the fastest peer, left of it slower."""
    values = ratios(found)
    if not values:
        return "<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>\n"
    low = min(0.5, min(values.values()))
    high = max(2.0, max(values.values()))
    scale = WIDTH / math.log(high / low)

    def x(value):
        return LEFT + math.log(value / low) * scale

    height = TOP + len(values) * (BAR + GAP) + 30
    out = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{LEFT + WIDTH + 70}' height='{height}' font-family='sans-serif' font-size='12'>",
        "<rect width='100%' height='100%' fill='white'/>",
        f"<text x='12' y='22' font-size='15'>Fastest peer ÷ Gannet (log scale, {escape(found['date'])})</text>",
        f"<text x='12' y='42' fill='#555'>right of 1 Gannet is faster; geometric mean {geometric_mean(values.values()):.2f}</text>",
    ]
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= tick <= high]
    for tick in ticks:
        colour = "#333" if tick == 1 else "#ddd"
        out.append(f"<line x1='{x(tick):.1f}' x2='{x(tick):.1f}' y1='{TOP - 6}' y2='{height - 26}' stroke='{colour}'/>")
        out.append(f"<text x='{x(tick):.1f}' y='{height - 10}' text-anchor='middle' fill='#555'>{tick:g}</text>")
    for index, (name, value) in enumerate(values.items()):
        y = TOP + index * (BAR + GAP)
        start, end = sorted((x(1), x(value)))
        colour = "#2a7f62" if value >= 1 else "#b5442f"
        out.append(f"<text x='{LEFT - 8}' y='{y + 11}' text-anchor='end'>{escape(name)}</text>")
        out.append(f"<rect x='{start:.1f}' y='{y}' width='{max(end - start, 1):.1f}' height='{BAR}' fill='{colour}'/>")
        out.append(f"<text x='{end + 4:.1f}' y='{y + 11}' fill='#333'>{value:.2f}</text>")
    out.append("</svg>")
    return "\n".join(out) + "\n"
