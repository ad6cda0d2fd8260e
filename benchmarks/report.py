"""Medians, the tables, and the ratios that are required."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from rows import Sample
from sides import ASYNCIO, GEVENT, GO, JS, PYTHON, RUST, TRIO, UVLOOP

PIPELINE = "py-libp2p pipeline"
CONNECT = "py-libp2p connect()"
BOUND = "public-key bound"

Results = dict[str, dict[str, list[Sample]]]
"""By row and side: one sample per run, in the order of the runs."""


@dataclass(slots=True)
class Figure:
    """One column of a row: `field` of its samples times `scale`, or `scale` over it."""

    title: str
    field: str
    scale: float
    inverse: bool = False
    digits: int = 2

    def of(self, sample: Sample) -> float:
        value = sample[self.field]
        return self.scale / value if self.inverse else self.scale * value


@dataclass(slots=True)
class Row:
    title: str
    figures: list[Figure]


def _timed(title: str, each: str, scale: float) -> Row:
    return Row(
        title,
        [
            Figure(f"{each}/s", "wall", 1, inverse=True, digits=0),
            Figure("CPU us" if scale == 1e6 else "CPU ms", "cpu", scale),
        ],
    )


def _upload(title: str) -> Row:
    return Row(
        title,
        [
            Figure("MB/s", "wall", 1000, inverse=True, digits=0),
            Figure("CPU s/GB", "cpu", 1),
        ],
    )


ROWS = {
    "upload 2": _upload("One stream, upload, two processes"),
    "upload 1": _upload("One stream, upload, one process"),
    "ping 2": _timed("Ping on an open stream, two processes", "pings", 1e6),
    "ping 1": _timed("Ping on an open stream, one process", "pings", 1e6),
    "streams 2": _timed("New stream, 32 B echo, close, two processes", "streams", 1e6),
    "streams 1": _timed("New stream, 32 B echo, close, one process", "streams", 1e6),
    "connect 1": Row(
        "Connect and close, one process, sequential",
        [
            Figure("connects/s", "wall", 1, inverse=True, digits=0),
            Figure("CPU ms, connect", "cpu", 1e3),
            Figure("CPU ms, with close", "cpu_with_close", 1e3),
        ],
    ),
    "connect 2": Row(
        "Connect and close, two processes, sequential",
        [
            Figure("connects/s", "wall", 1, inverse=True, digits=0),
            Figure("CPU ms, with close", "cpu_with_close", 1e3),
        ],
    ),
    "memory": Row(
        "Memory per idle connection, both ends",
        [
            Figure("resident KB", "bytes", 1e-3, digits=1),
            Figure("heap KB", "heap", 1e-3, digits=1),
        ],
    ),
    "import": Row(
        "Import in a fresh interpreter",
        [
            Figure("wall ms", "wall", 1e3, digits=0),
            Figure("CPU ms", "cpu", 1e3, digits=0),
            Figure("RSS MB", "rss", 1e-6, digits=1),
        ],
    ),
}


@dataclass(slots=True)
class Required:
    """Median of `field` of `other` over that of `side`, at least `target`.

    With `other` None: anyp2p's own median times `scale` is at most `target`.
    """

    row: str
    text: str
    field: str
    other: str | None
    target: float
    judged: bool = True
    scale: float = 1.0
    side: str = ASYNCIO

    def value(self, results: Results) -> float | None:
        ours = _median(results, self.row, self.side, self.field)
        if ours is None:
            return None
        if self.other is None:
            return ours * self.scale
        other = _median(results, self.row, self.other, self.field)
        return None if other is None else other / ours

    def verdict(self, results: Results) -> str:
        value = self.value(results)
        if value is None:
            return "not measured"
        met = value <= self.target if self.other is None else value >= self.target
        if not self.judged:
            return "(reached)" if met else "(not reached)"
        return "met" if met else "MISSED"


REQUIRED = [
    Required("upload 2", "upload, CPU, against py-libp2p", "cpu", PYTHON, 8),
    Required("upload 2", "upload, MB/s, against py-libp2p", "wall", PYTHON, 8, judged=False),
    Required("upload 2", "upload, CPU, against js", "cpu", JS, 3),
    Required("upload 2", "upload, MB/s, against js", "wall", JS, 3, judged=False),
    Required("upload 2", "upload, CPU, against go", "cpu", GO, 1),
    Required("upload 2", "upload, CPU, against rust", "cpu", RUST, 1),
    Required("ping 1", "ping, CPU, against py-libp2p", "cpu", PYTHON, 15),
    Required("ping 2", "ping, CPU, two processes", "cpu", PYTHON, 15, judged=False),
    Required("upload 2", "trio: upload, CPU, against py-libp2p", "cpu", PYTHON, 4, side=TRIO),
    Required("ping 1", "trio: ping, CPU, against py-libp2p", "cpu", PYTHON, 8, side=TRIO),
    Required("upload 2", "gevent: upload, CPU, against py-libp2p", "cpu", PYTHON, 4, side=GEVENT),
    Required("ping 1", "gevent: ping, CPU, against py-libp2p", "cpu", PYTHON, 8, side=GEVENT),
    Required("ping 1", "uvloop: ping, CPU, against asyncio", "cpu", ASYNCIO, 1, side=UVLOOP),
    Required("streams 1", "streams, CPU, against py-libp2p", "cpu", PYTHON, 30),
    Required("streams 2", "streams, CPU, two processes", "cpu", PYTHON, 30, judged=False),
    Required("connect 1", "connect, CPU, bound over measured", "cpu", BOUND, 0.6),
    Required("connect 1", "the same, with close", "cpu_with_close", BOUND, 0.6, judged=False),
    Required("connect 1", "connect, CPU, against the pipeline", "cpu", PIPELINE, 2.5),
    Required("connect 1", "the same, with close", "cpu_with_close", PIPELINE, 2.5, judged=False),
    Required("connect 1", "connect, wall, against connect()", "wall", CONNECT, 100),
    Required("memory", "memory, resident, against py-libp2p", "bytes", PYTHON, 2),
    Required("import", "import, CPU ms, at most", "cpu", None, 80, scale=1e3),
    Required("import", "import, wall ms, at most", "wall", None, 80, judged=False, scale=1e3),
    Required("import", "import, RSS MB, at most", "rss", None, 30, scale=1e-6),
]


def missed(results: Results, required: Sequence[Required] = REQUIRED) -> list[str]:
    """The judged requirements that are measured and not met."""
    return [item.text for item in required if item.verdict(results) == "MISSED"]


def tables(
    results: Results,
    rows: Mapping[str, Row] = ROWS,
    required: Sequence[Required] = REQUIRED,
) -> str:
    """Everything measured, then what is required of it; Markdown that reads well as text."""
    parts = []
    for name, row in rows.items():
        if results.get(name):
            parts.append(_table(row, results[name]))
    lines = [["required", "at least", "measured", "min-max of the runs", ""]]
    for item in required:
        value = item.value(results)
        if item.row not in results:
            continue
        lines.append(
            [
                item.text,
                f"{item.target:g}",
                "-" if value is None else _number(value, 2),
                _spread(item, results),
                item.verdict(results),
            ]
        )
    if len(lines) > 1:
        parts.append(_align(lines))
    return "\n\n".join(parts)


def machine(implementations: dict[str, str], load: float) -> str:
    """What the figures were taken on, without its name."""
    model = platform.machine()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{os.cpu_count()} cores of {model}, {pages / 1e9:.0f} GB, "
        f"{platform.system()} {platform.release().split('-')[0]}, "
        f"load {load:.1f} before the start",
        f"{platform.python_implementation()} {platform.python_version()}, {_libraries()}",
        *(f"{name}: {text}" for name, text in implementations.items()),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _libraries() -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import cryptography\n"
            "from cryptography.hazmat.backends.openssl.backend import backend\n"
            "print('cryptography', cryptography.__version__ + ',', backend.openssl_version_text())",
        ],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "no cryptography"


def _table(row: Row, sides: dict[str, list[Sample]]) -> str:
    figures = [
        figure for figure in row.figures if any(_has(s, figure.field) for s in sides.values())
    ]
    head = [row.title]
    for figure in figures:
        head += [figure.title, "min-max", "x"]
    lines = [head]
    for side, samples in sides.items():
        line = [side]
        for figure in figures:
            if not _has(samples, figure.field):
                line += ["-", "", ""]
                continue
            values = [figure.of(sample) for sample in samples]
            base = sides.get(ASYNCIO)
            times = ""
            if base and side != ASYNCIO and _has(base, figure.field):
                cost = median(sample[figure.field] for sample in samples)
                times = _number(cost / median(sample[figure.field] for sample in base), 2)
            line += [
                _number(median(values), figure.digits),
                f"{_number(min(values), figure.digits)}-{_number(max(values), figure.digits)}",
                times,
            ]
        lines.append(line)
    return _align(lines)


def _has(samples: list[Sample], field: str) -> bool:
    return bool(samples) and all(field in sample for sample in samples)


def _median(results: Results, row: str, side: str, field: str) -> float | None:
    samples = results.get(row, {}).get(side, [])
    return median(sample[field] for sample in samples) if _has(samples, field) else None


def _spread(item: Required, results: Results) -> str:
    """The least and the largest ratio of a single run."""
    ours = results.get(item.row, {}).get(item.side, [])
    if item.other is None:
        values = [sample[item.field] * item.scale for sample in ours]
    else:
        others = results.get(item.row, {}).get(item.other, [])
        values = [
            other[item.field] / own[item.field]
            for own, other in zip(ours, others, strict=False)
            if item.field in own and item.field in other
        ]
    return f"{_number(min(values), 2)}-{_number(max(values), 2)}" if values else ""


def _number(value: float, digits: int) -> str:
    if value >= 1000:
        digits = 0
    elif value >= 100:
        digits = min(digits, 1)
    return f"{value:,.{digits}f}"


def _align(lines: list[list[str]]) -> str:
    """A Markdown table with columns of equal width: text left, figures right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def render(line: list[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(
        [f"{'-' * (widths[0] + 2)}", *(f"{'-' * (width + 1)}:" for width in widths[1:])]
    )
    return "\n".join([render(lines[0]), f"|{rule}|", *map(render, lines[1:])])
