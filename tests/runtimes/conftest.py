"""The files of this directory import each other by name, and programs of it run by themselves."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = ["bare_node.py"]  # a program: to import it is to run it
