"""Results for people and programs: progress while it runs, tables or JSON at the end."""

import json
import re
import sys
from dataclasses import asdict, dataclass, field

import cells
from building import Spec

OK, FAIL, SKIP = "ok", "FAIL", "skip"
COLUMNS = (*(cell.name for cell in cells.CELLS), *cells.KEYS)


@dataclass(slots=True)
class Result:
    """One cell of the table. ``reason`` also tells what a rerun of a failed cell gave."""

    peer: str
    runtime: str
    direction: str
    cell: str
    outcome: str
    seconds: float = 0.0
    reason: str = ""
    remark: str = ""


@dataclass(slots=True)
class Suite:
    """The results that make one table."""

    name: str
    results: list[Result]
    columns: tuple[str, ...] = COLUMNS
    """The order of the cells."""
    heads: tuple[str, str, str, str] = ("peer", "implementation", "runtime", "direction")
    title: str = ""
    measured: list[str] = field(default_factory=list)
    """Lines below the table."""
    stacked: bool = False
    """Whether the words in the names of columns stand above each other."""


class Progress:
    """One line on stderr that is rewritten on a terminal; whole lines only if ``verbose``."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._terminal = sys.stderr.isatty()

    def line(self, text: str) -> None:
        """Something that should stay readable."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def now(self, text: str) -> None:
        """What is under way."""
        if self._terminal and not self._verbose:
            print(f"\r\033[K{text[:78]}", end="", file=sys.stderr, flush=True)

    def done(self, result: Result) -> None:
        if self._verbose:
            remark = result.remark or result.reason
            self.line(
                f"{result.runtime:7} {result.peer:6} {result.direction:9} {result.cell:14}"
                f" {result.outcome:4} {result.seconds:6.2f} s  {remark}"
            )

    def clear(self) -> None:
        if self._terminal and not self._verbose:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def report(
    suites: list[Suite], specs: dict[str, Spec], as_json: bool, building: float, total: float
) -> int:
    """Print the results; returns the exit code."""
    results = [result for suite in suites for result in suite.results]
    count = {o: sum(result.outcome == o for result in results) for o in (OK, FAIL, SKIP)}
    if as_json:
        content = {
            "cells": [
                {"suite": suite.name} | asdict(result)
                for suite in suites
                for result in suite.results
            ],
            "passed": count[OK],
            "failed": count[FAIL],
            "skipped": count[SKIP],
            "seconds": round(total, 1),
        }
        print(json.dumps(content, indent=1))
    else:
        print("\n\n".join(table(suite, specs) for suite in suites if suite.results))
        print(f"\n{total:.0f} s, of these {building:.0f} s for building")
        print(f"{count[OK]} passed, {count[FAIL]} failed, {count[SKIP]} skipped")
    return 1 if count[FAIL] or not count[OK] else 0


def table(suite: Suite, specs: dict[str, Spec]) -> str:
    """The results as text, the rows of one peer together, with the reasons below."""
    results = suite.results
    columns = [name for name in suite.columns if any(result.cell == name for result in results)]
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for result in results:
        row = (result.peer, result.runtime, result.direction)
        rows.setdefault(row, {})[result.cell] = result.outcome
    peers = list(dict.fromkeys(row[0] for row in rows))
    runtimes = list(dict.fromkeys(row[:2] for row in rows))
    lines = _head(suite, columns)
    above = len(lines)
    for row in sorted(rows, key=lambda row: (peers.index(row[0]), runtimes.index(row[:2]))):
        spec = specs.get(row[0])
        about = f"{spec.implementation} {spec.version}".strip() if spec is not None else ""
        lines.append([row[0], about, *row[1:], *(rows[row].get(name, "") for name in columns)])
    kept = [column for column in zip(*lines, strict=True) if any(column[above:])]
    widths = [max(map(len, column)) for column in kept]
    text = [f"{suite.title}\n"] if suite.title else []
    text += [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*kept, strict=True)
    ]
    text += _reasons(results)
    text += ["", *suite.measured] if suite.measured else []
    return "\n".join(text)


def _head(suite: Suite, columns: list[str]) -> list[list[str]]:
    """The names of the columns, on as many lines as they take."""
    names = [re.split("[+ ]", name) if suite.stacked else [name] for name in columns]
    height = max(map(len, names), default=1)
    stacked = [[name] + [""] * (height - 1) for name in suite.heads]
    stacked += [name + [""] * (height - len(name)) for name in names]
    return [list(line) for line in zip(*stacked, strict=True)]


def _reasons(results: list[Result]) -> list[str]:
    """One line for each reason and peer: the cells that share it come before it."""
    grouped: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        if result.outcome != OK:
            grouped.setdefault((result.outcome, result.peer, result.reason), []).append(result)
    lines = []
    for outcome in (FAIL, SKIP):
        for (kind, peer, reason), same in grouped.items():
            if kind == outcome:
                said = reason.removeprefix(f"{peer}: ")
                lines.append(f"{kind} {peer}: {_where(same)}: {said}")
    return ["", *lines] if lines else []


def _where(results: list[Result]) -> str:
    """Which cells these are; one by one if they are few and failed."""
    if results[0].outcome == SKIP or len(results) > 4:
        return ", ".join(dict.fromkeys(result.cell for result in results))
    return ", ".join(
        f"{result.cell} ({f'{result.runtime} {result.direction}'.strip()})".removesuffix(" ()")
        for result in results
    )
