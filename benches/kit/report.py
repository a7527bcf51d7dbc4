"""What was measured, as tables and as one number for each measure and pair."""

import statistics

from . import machine, parts


def median(results, *path):
    values = []
    for result in results:
        for key in path:
            result = result.get(key) if isinstance(result, dict) else None
        if result is not None:
            values.append(result)
    return statistics.median(values) if values else None


def _both(results, *path):
    """Of both proxies together."""
    sides = [median(results, *path, side) for side in ("client", "server")]
    return sum(sides) if all(side is not None for side in sides) else None


# Titles, where the number is, how it is written. Each table is shown if one of its numbers was measured.
TABLES = [
    ("Small requests (HTTP/1.1, 64 bytes back)", [
        ("req/s, 32 conns", ("many", "requests_per_sec"), "{:,.0f}"),
        ("CPU us/req client", ("many", "cpu_us", "client"), "{:.1f}"),
        ("CPU us/req server", ("many", "cpu_us", "server"), "{:.1f}"),
        ("p50 us, 1 conn", ("one", "p50_us"), "{:.0f}"),
        ("p99 us, 5k/s open", ("open", "p99_us"), "{:.0f}"),
        ("CPU us/handshake", ("handshakes", "cpu_us", "server"), "{:.0f}"),
        ("PSS MiB idle, each", ("pss_mib",), "{:.1f}"),
        (f"with {parts.HELD} conns", ("pss_held_mib",), "{:.1f}"),
        ("ready ms", ("ready_ms",), "{:.0f}"),
    ]),
    ("Bytes", [
        ("Gbit/s up", ("up", "gbit_per_sec"), "{:.1f}"),
        ("Gbit/s down", ("down", "gbit_per_sec"), "{:.1f}"),
        ("ping-pongs/s, 32 conns", ("echo", "requests_per_sec"), "{:,.0f}"),
        ("p50 us", ("echo", "p50_us"), "{:.0f}"),
    ]),
    ("Requests per second by size of the answer", [(f"{size} bytes".replace("k", " Ki").replace("m", " Mi"), (f"body_{size}", "requests_per_sec"), "{:,.0f}") for size in parts.BODIES]),
    ("Small requests per second by number of connections", [(f"{count:,}", (f"conns_{count}", "requests_per_sec"), "{:,.0f}") for count in parts.WIDTHS]),
    ("gRPC in plain on both outer sides (8 connections)", [
        ("unary calls/s", ("unary", "requests_per_sec"), "{:,.0f}"),
        ("64 KiB messages up/s", ("upload", "requests_per_sec"), "{:,.0f}"),
    ]),
    ("Small requests per second by number of grants at the server", [(f"{count:,}", (f"grants_{count}", "requests_per_sec"), "{:,.0f}") for count in parts.GRANTS]),
]


def _rows(by_pair, columns, ratios):
    rows = [["pair"] + [title for title, _, _ in columns] + (["vs direct", "vs mesh"] if ratios else [])]
    rate = {name: median(results, *columns[0][1]) for name, results in by_pair.items()}
    for name, results in by_pair.items():
        values = [(median(results, *path), form) for _, path, form in columns]
        if all(value is None for value, _ in values):
            continue
        cells = [name] + ["-" if value is None else form.format(value) for value, form in values]
        for other in ("direct", "mesh") if ratios else ():
            known = rate.get(other) and rate.get(name)
            cells.append(f"{rate[name] / rate[other]:.2f}" if known else "-")
        rows.append(cells)
    return rows


def _tables(by_pair):
    for number, (title, columns) in enumerate(TABLES):
        rows = _rows(by_pair, columns, ratios=number == 0)
        if len(rows) > 1:
            yield title, rows


def line(result):
    """A few words about one turn of one pair."""
    many = result.get("many")
    return f"{many['requests_per_sec']:,.0f} req/s, foreign load {many['foreign_percent']:.0f} %" if many else "done"


def text(by_pair):
    """All tables, for a terminal."""
    lines = []
    for title, rows in _tables(by_pair):
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines += ["", title]
        lines += ["  ".join(cell.ljust(w) if at == 0 else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths))) for row in rows]
    return "\n".join(lines)


def medians(by_pair):
    """One number for each measure and pair. `p99_added_ms`: above that of no proxies, if these were measured too."""
    out = {}
    direct = median(by_pair.get("direct", []), "open", "p99_us")
    for pair, results in by_pair.items():
        p99 = median(results, "open", "p99_us")
        measured = {"rps": median(results, "many", "requests_per_sec"), "cpu_us": _both(results, "many", "cpu_us"),
                    "p99_added_ms": (p99 - direct) / 1000 if p99 and direct else None,
                    "tcp_gbit": median(results, "up", "gbit_per_sec"), "tcp_gbit_down": median(results, "down", "gbit_per_sec"),
                    "tcp_rr": median(results, "echo", "requests_per_sec"),
                    "handshake_cpu_us": median(results, "handshakes", "cpu_us", "server"),
                    "pss_idle_mib": median(results, "pss_mib"), "pss_1000_mib": median(results, "pss_held_mib")}
        for title, columns in TABLES[2:]:
            measured |= {path[0]: median(results, *path) for _, path, _ in columns}
        for measure, value in measured.items():
            if value is not None:
                out.setdefault(measure, {})[pair] = round(value, 3)
    return out


def page(by_pair, args):
    """The tables as a document: what was measured, how, on what."""
    at = machine.describe()
    foreign = median([result for results in by_pair.values() for result in results], "many", "foreign_percent")
    groups = sorted({(pair, result["handshakes"]["group"]) for pair, results in by_pair.items() for result in results if "handshakes" in result})
    command = f"benches/compare --parts {','.join(args.parts) if len(args.parts) < len(parts.ALL) else 'all'} --rounds {args.rounds} --secs {args.secs}"
    lines = ["# Performance", "",
             "Pairs of proxies with mutual TLS 1.3 between them and the client's identity checked on the server's side, side by side in one run:", "",
             "```sh", f"{command} --markdown docs/performance.md", "```", ""]
    for title, rows in _tables(by_pair):
        lines += [f"## {title}", "", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(row) + " |" for row in rows[1:]] + [""]
    lines += ["## Method", "",
              f"Medians of {args.rounds} rounds in which the pairs took turns. {at['cpus']} processors of {at['model']}, Linux {at['kernel']}, {at['at'][:10]}"
              + (f"; others took {foreign:.0f} % of the machine" if foreign is not None else "") + ". Both proxies of a pair share one core, generator and backend "
              "have the other, so requests per second are what a pair costs. What each column means, and what is not measured: [benches](../benches/README.md).", ""]
    if groups:
        lines += ["Keys of the handshakes were exchanged by " + ", ".join(f"{group} ({pair})" for pair, group in groups) + ".", ""]
    lines += ["What the others do better or otherwise: HAProxy checks an identity once for each connection and keeps no record of decisions; it "
              "has the least in its path, and is the one to beat. nginx speaks HTTP/1.1 to its upstreams alone, and takes next to nothing for a connection. Envoy "
              "carries a filter chain that can be changed while it runs. `direct` is no proxies at all.", ""]
    return "\n".join(lines)
