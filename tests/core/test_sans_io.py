"""The core stays free of I/O, clocks, randomness, threads, coroutines and dependencies."""

import ast
import pathlib

import pytest

import anyp2p_core

ALLOWED = {
    "abc", "array", "base64", "bisect", "collections", "contextlib", "dataclasses", "enum",
    "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "operator", "struct",
    "types", "typing",
}  # fmt: skip
FILES = sorted(pathlib.Path(anyp2p_core.__file__).parent.rglob("*.py"))
CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_are_on_the_list(path):
    for name in imported(ast.parse(path.read_text())):
        assert name.split(".")[0] in ALLOWED, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_coroutines(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    assert not [n for n in nodes if isinstance(n, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_call_reaches_outside(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CALLS, f"{path.name} calls {node.func.id}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_iteration_over_a_set(path):
    """Sets of strings and bytes change their order with the hash seed: use dicts."""
    for node in ast.walk(ast.parse(path.read_text())):
        iterated = node.iter if isinstance(node, ast.For | ast.comprehension) else None
        is_set = isinstance(iterated, ast.Set | ast.SetComp) or (
            isinstance(iterated, ast.Call)
            and isinstance(iterated.func, ast.Name)
            and iterated.func.id in {"set", "frozenset"}
        )
        assert not is_set, f"{path.name}:{iterated.lineno} iterates over a set"


def test_the_check_can_fail():
    assert list(imported(ast.parse("import os, time\nfrom socket import socket"))) == [
        "os", "time", "socket",
    ]  # fmt: skip
