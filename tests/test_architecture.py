"""The house's plan: imports go down only, light commands stay light, and nothing of the kind the house forbids."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from internvl_chat.__main__ import COMMANDS
from internvl_chat.families import FAMILIES
from tests.helpers import ROOT, run_python

PACKAGE = ROOT / "internvl_chat"
# Floors are what may import what: see docs/architecture.md.
FLOOR_OF_ROOM = {
    "boxes": 0,
    "command_line": 0,
    "choices": 0,
    "constants": 0,
    "vision": 0,
    "families": 0,
    "contracts": 0,
    "files": 0,
    "grounding": 0,
    "settings": 0,
    "journal": 0,
    "steps": 0,
    "processes": 0,
    "data": 1,
    "model": 1,
    "scoring": 1,
    "inference": 2,
    "planning": 2,
    "trackers": 2,
    "captions": 3,
    "api": 3,
    "train": 3,
    "tasks": 3,
    "reports": 3,
    "lmms": 3,
    "serving": 3,
    "web": 3,
    "commands": 4,
    "__main__": 4,
}
TOP_FLOOR = 4
# Rooms of one floor that never meet.
APART = (
    {"data", "model", "scoring"},
    {"inference", "planning", "trackers"},
    {"train", "tasks", "reports", "serving", "web"},
)
# What a higher room of the same floor may use of another: reports show what tasks measured.
MAY_MEET = {("reports", "tasks")}
# Doors of the same name as what they open: a family, or a control, has a half in data/ and one in model/.
SAME_NAME_ROOMS = ("commands", "families", "controls", "converters", "tasks")
MOST_LINES, MOST_FUNCTION_LINES, MOST_FILES = 350, 80, 16
ENTRIES = {
    "internvl_chat.train.finetune_w_bboxes_ml",
    "internvl_chat.train.start_checks",
    "eval_const",
    "generate_npy_bboxes",
}
SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOT_SCRIPTS = sorted(ROOT.glob("*.py"))
# What stands beside the package: on no floor, and held to the same sizes.
BESIDE = sorted(path for room in ("quickstart", "benchmarks", "examples") for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    """`internvl_chat/data/media/video.py` -> `internvl_chat.data.media.video`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports_of(path: Path) -> Iterator[str]:
    """Every module of the repository that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if is_module(name) else str(node.module) for name in inside]
        else:
            continue
        yield from (n for n in names if n.split(".")[0] in ("internvl_chat", "quickstart", "tests") or n in ENTRIES)


def floor_of(module: str) -> int:
    if module in ENTRIES:
        return TOP_FLOOR
    room = module.split(".")[1:2]
    return FLOOR_OF_ROOM[room[0]] if room else 0


# The package's own file is a door too: it opens `api` when somebody asks for it, not when it is imported.
EDGES = [
    (name_of(path), target)
    for path in [*SOURCES, *ROOT_SCRIPTS]
    if path != PACKAGE / "__init__.py"
    for target in imports_of(path)
]


def test_every_room_has_a_floor() -> None:
    rooms = {name_of(path).split(".")[1] for path in SOURCES if path != PACKAGE / "__init__.py"}
    assert rooms == FLOOR_OF_ROOM.keys()


def test_imports_go_down_only() -> None:
    assert len(EDGES) > 50
    assert [f"{a} imports {b}" for a, b in EDGES if floor_of(b) > floor_of(a)] == []


def test_rooms_of_one_floor_do_not_import_each_other() -> None:
    def meet(a: str, b: str) -> bool:
        first, second = ((name.split(".")[1:2] or [""])[0] for name in (a, b))
        together = any({first, second} <= rooms for rooms in APART)
        return first != second and together and (first, second) not in MAY_MEET

    assert [f"{a} imports {b}" for a, b in EDGES if a not in ENTRIES and meet(a, b)] == []


def test_a_family_is_imported_by_name_in_its_own_files_alone() -> None:
    """Everything else goes through the table, so that one more family is one more line."""

    def family_in(module: str) -> str:
        _, is_of_one, rest = module.partition(".families.")
        name = rest.split(".")[0] if is_of_one else ""
        return next((one.name for one in FAMILIES if name == one.name or name.startswith(f"{one.name}_")), "")

    known = [(a, b) for a, b in EDGES if family_in(b)]
    assert len(known) > 20
    assert [f"{a} imports {b}" for a, b in known if family_in(a) != family_in(b)] == []


def test_no_module_is_imported_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for a, b in EDGES:
        graph.setdefault(a, set()).add(b)
    assert list(TopologicalSorter(graph).static_order())


def test_files_functions_and_folders_stay_small() -> None:
    """A full room wants folders, a long file another file; neither wants a longer list of exceptions."""
    sources = [*SOURCES, *ROOT_SCRIPTS, *BESIDE]
    lines = {path: path.read_text(encoding="utf-8") for path in sources}
    long_files = [str(path) for path, text in lines.items() if len(text.splitlines()) > MOST_LINES]
    functions = [
        (path, node)
        for path, text in lines.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 500
    long_functions = [
        f"{path}:{node.name}" for path, node in functions if (node.end_lineno or 0) - node.lineno >= MOST_FUNCTION_LINES
    ]
    # A folder of doors is a list to look things up in; it may be as long as there are doors.
    rooms = Counter(path.parent for path in sources if path.parent.name not in ("commands", "converters"))
    full = [str(folder) for folder, count in rooms.items() if count > MOST_FILES]
    assert (long_files, long_functions, full) == ([], [], [])


def test_no_module_name_is_given_twice() -> None:
    names = Counter(
        path.stem
        for path in SOURCES
        if path.stem != "__init__" and not set(path.relative_to(PACKAGE).parts) & set(SAME_NAME_ROOMS)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_nobody_imports_an_entry() -> None:
    """Commands are reached through the command line; only what they share is open to others."""

    def allowed(source: str, target: str) -> bool:
        if target in ("internvl_chat.commands.options", "internvl_chat.commands.next_steps"):
            return source.startswith(("internvl_chat.commands.", "internvl_chat.__main__")) or source in ENTRIES
        return source == "internvl_chat.__main__" or source in ENTRIES

    assert [f"{a} imports {b}" for a, b in EDGES if floor_of(b) == TOP_FLOOR and not allowed(a, b)] == []


def test_the_package_needs_neither_the_quickstart_nor_the_tests() -> None:
    assert [f"{a} imports {b}" for a, b in EDGES if not b.startswith("internvl_chat")] == []


def test_importing_the_package_imports_no_torch() -> None:
    result = run_python("-c", "import sys, internvl_chat; sys.exit('torch' in sys.modules)")
    assert result.returncode == 0, result.stderr


# Runs a module or script with arguments and reports its exit code and whether torch was imported.
_PROBE = """
import runpy, sys
target, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = target
try:
    run = runpy.run_path if target.endswith(".py") else runpy.run_module
    run(target, run_name="__main__")
    code = 0
except SystemExit as error:
    code = error.code
sys.stderr.write(f"code={code} torch={'torch' in sys.modules}")
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["internvl_chat", "--help"], 0),
        (["internvl_chat", "flowchart", "--out", "x", "--classes", "hex"], 2),
        (["internvl_chat", "plan", "--model_name_or_path", "base", "--gpu", "abacus"], 2),
        *[(["internvl_chat", command, "--help"], 0) for command in COMMANDS],
        (["internvl_chat", "check"], 2),
        (["internvl_chat", "convert-data", "x.json", "--from", "nothing"], 2),
        (["internvl_chat"], 2),
        (["internvl_chat", "score", "--predictions", "p.json"], 1),
        (["internvl_chat", "evaluate", "nothing", "--model", "m"], 2),
        (["internvl_chat", "consensus", "--metric", "ROUGE-L"], 2),
        (["internvl_chat", "score-answers", "a.jsonl", "--as", "poetry"], 2),
        (["internvl_chat", "score-answers", "a.jsonl", "--as", "qa"], 1),
        (["internvl_chat", "score-answers", "nowhere.jsonl", "--as", "choices"], 1),
        (["internvl_chat", "no-such-command"], 2),
        (["internvl_chat", "annotate", "--out", "x.jsonl"], 2),
        (["internvl_chat", "track", "v.mp4", "--box", "1,2,0,4", "--out", "x.txt"], 2),
        (["internvl_chat", "track", "v.mp4", "--out", "x.txt"], 1),
        (["internvl_chat", "control", "--num_frames", "many"], 2),
        (["internvl_chat", "chat", "--image", "a.png"], 2),
        (["internvl_chat", "chat", "--model", "m", "--image", "README.md", "--box", "3,2,1,4"], 1),
        (["internvl_chat", "chat", "--model", "m", "--box", "1,2,3,4"], 1),
        (["internvl_chat", "chat", "--model", "m", "--image", "nowhere.png"], 1),
        (["internvl_chat", "answer", "--model", "m"], 2),
        (["internvl_chat", "serve", "--model", "m", "--max_batch", "0"], 2),
        (["internvl_chat", "serve", "--model", "m", "--media_root", "nowhere"], 1),
        (["eval_const.py", "--help"], 0),
        (["eval_const.py", "--split", "secret"], 2),
        (["generate_npy_bboxes.py", "--help"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_usage_errors_cost_no_torch(argv: list[str], code: int) -> None:
    result = run_python("-c", _PROBE, *argv)
    assert result.stderr.endswith(f"code={code} torch=False"), result.stderr


def test_every_command_has_its_module_and_no_module_is_left_out() -> None:
    names = {path.stem for path in (PACKAGE / "commands").glob("*.py")} - {"__init__", "options", "next_steps"}
    assert {name.replace("_", "-") for name in names} == set(COMMANDS)


@pytest.mark.parametrize("forbidden", ["trust_remote_code=True", "/data3"])
def test_no_remote_code_and_no_path_of_another_machine(forbidden: str) -> None:
    shell = [path for path in (ROOT / "shell").rglob("*") if path.is_file()]
    assert shell
    files = [*SOURCES, *ROOT_SCRIPTS, *shell]
    assert [str(path) for path in files if forbidden in path.read_text(encoding="utf-8")] == []


def test_no_print_in_the_package() -> None:
    calls = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []
