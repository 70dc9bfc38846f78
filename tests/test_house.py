"""The rules of the house that a program can check."""

import ast
import importlib
import inspect
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "cachee_shm" / "core"

# Who may import whom: downward, or a sibling where that makes no cycle. A new module is given its floor here.
FLOORS = {
    "cachee_shm": [
        ["_core"],
        ["errors", "config", "mistakes", "shape", "service"],
        ["extensions", "registry", "compression"],
        ["arrays", "classes"],
        ["packing"],
        ["codec", "keys", "statements"],
        ["segment", "events", "waiting"],
        ["near", "loads", "loading", "many", "locks", "host", "synced", "health"],
        ["timeouts"],
        ["cached", "filling"],
        ["cache"],
        ["bypass"],
        ["attaching", "transactions"],
        ["backing", "late"],
        ["cachelib"],
        [
            *("__init__", "cli", "sqlalchemy", "http", "testing"),
            *("aiocache", "cashews", "celery", "dogpile", "flask", "jinja", "litestar", "starlette"),
        ],
    ],
    "cachee_bridge": [
        ["identity", "seal", "budget", "pace", "logs", "strangers", "gate", "owners", "reasons"],
        ["frames", "config", "effects", "ports", "discovery", "dials", "addresses", "freshness", "roll"],
        [
            "versions",
            "stream",
            "repair",
            "buckets",
            "relays",
            "fanout",
            "auth",
            "removal",
            "members",
            "bulletin",
            "calm",
        ],
        ["link", "relaying", "exchange"],
        ["isolation", "gossip", "membership", "paths", "intake", "views", "mesh"],
        [
            "boottime",
            "tls",
            "credentials",
            "accepting",
            "names",
            "own",
            "transport",
            "resolver",
            "control",
            "report",
            "pump",
            "doorbell",
            "notify",
            "timer",
            "older",
            "segments",
            "shell",
            "daemon",
            "__main__",
            "__init__",
        ],
    ],
}
SOURCES = {"cachee_shm": ROOT / "cachee_shm", "cachee_bridge": ROOT / "bridge" / "cachee_bridge"}

# The protocol is a function of bytes, records and `now`: what would make it anything else is not imported.
PROTOCOL = {
    "identity",
    "seal",
    "budget",
    "pace",
    "strangers",
    "gate",
    "frames",
    "effects",
    "ports",
    "addresses",
    "freshness",
    "stream",
    "repair",
    "fanout",
    "auth",
}
PROTOCOL |= {
    "versions",
    "buckets",
    "discovery",
    "removal",
    "bulletin",
    "members",
    "link",
    "relays",
    "relaying",
    "exchange",
    "membership",
    "intake",
    "paths",
    "mesh",
}
NO_INPUT_OUTPUT = {
    "asyncio",
    "socket",
    "select",
    "selectors",
    "ssl",
    "threading",
    "time",
    "uvloop",
    "subprocess",
}

TOP_LEVEL = {
    *("cachee_shm", "bridge", "tests", "bench", "examples"),
    *(
        "pyproject.toml",
        "meson.build",
        "Makefile",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        ".ci",
        ".gitignore",
    ),
}
MADE_BY_TOOLS = {
    ".git",
    ".venv",
    "build",
    "dist",
    ".hypothesis",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
}
FILE_LINES_MAX = 700


def files(*suffixes: str) -> list[Path]:
    """Every source file of the project with one of these endings."""
    return sorted(
        Path(folder) / name
        for top in TOP_LEVEL
        for folder, _, names in os.walk(ROOT / top)
        for name in names
        if name.endswith(suffixes)
    )


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def naming(pattern: str, paths: list[Path]) -> set[str]:
    return {name_of(path) for path in paths if re.search(pattern, path.read_text(encoding="utf-8"))}


# C


def test_memory_orders_are_named_in_atomics_h_alone():
    assert naming("memory_order" + "_", files(".c", ".h")) <= {"cachee_shm/core/atomics.h"}


def test_only_the_binding_knows_python():
    knowing = naming(r"#\s*include\s*[<\"](Python|module)\.h", sorted(CORE.glob("*.[ch]")))
    assert knowing
    assert {Path(name).stem.split("_")[0] for name in knowing} == {"module"}


def test_only_segment_c_maps_memory_but_for_the_page_that_holds_a_lock():
    assert naming(r"\bm(un|re)?map\s*\(", sorted(CORE.glob("*.[ch]"))) <= {
        "cachee_shm/core/segment.c",
        "cachee_shm/core/roster.c",
    }
    assert naming("PROT_" + "WRITE", sorted(CORE.glob("*.[ch]"))) == {"cachee_shm/core/segment.c"}


def test_the_build_names_every_source_of_the_core_and_no_other():
    text = (ROOT / "meson.build").read_text()
    assert set(re.findall(r"cachee_shm/core/\w+\.c", text)) == {name_of(path) for path in CORE.glob("*.c")}


# Floors


def modules(package: str) -> list[Path]:
    return sorted(SOURCES[package].glob("*.py"))


def floor_of(package: str, module: str) -> int:
    for number, names in enumerate(FLOORS[package]):
        if module in names:
            return number
    raise AssertionError(f"{package}.{module} has no floor: give it one in tests/test_house.py")


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports when it runs; what only types need is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in reached(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reached(node: ast.AST):
    """Every node below but the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from reached(child)


def siblings(package: str, path: Path) -> set[str]:
    """The modules of the same package that a file imports."""
    own = {module.stem for module in modules(package)} | {"_core", "cli", "http"}
    parts = [name.split(".") for name in imported(path) if name.split(".")[0] == package]
    return {part[1] if len(part) > 1 and part[1] in own else "__init__" for part in parts} - {path.stem}


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_downward(package):
    upward = [
        f"{package}.{path.stem} (floor {floor_of(package, path.stem)}) imports {other}"
        for path in modules(package)
        for other in siblings(package, path)
        if floor_of(package, other) > floor_of(package, path.stem)
    ]
    assert upward == []


@pytest.mark.parametrize("package", FLOORS)
def test_imports_have_no_cycle(package):
    graph = {path.stem: siblings(package, path) for path in modules(package)}
    while graph:
        ends = {module for module, others in graph.items() if not others & graph.keys()}
        assert ends, f"a cycle among {sorted(graph)}"
        graph = {module: others for module, others in graph.items() if module not in ends}


def test_the_package_does_not_know_its_commands_nor_the_bridge():
    for path in modules("cachee_shm"):
        assert not [name for name in imported(path) if name.startswith(("cachee_bridge", "cachee_shm.cli"))]


def test_the_protocol_does_no_input_and_output_and_knows_no_segment():
    for module in sorted(PROTOCOL):
        path = SOURCES["cachee_bridge"] / f"{module}.py"
        for name in imported(path) if path.exists() else ():
            top, _, rest = name.partition(".")
            assert top not in NO_INPUT_OUTPUT, f"{name_of(path)} imports {name}"
            assert top != "cachee_shm" or rest.startswith("errors"), f"{name_of(path)} imports {name}"


# Names


def public_functions():
    package = importlib.import_module("cachee_shm")
    for name in getattr(package, "__all__", []):
        thing = getattr(package, name)
        yield f"cachee_shm.{name}", thing
        if inspect.isclass(thing):
            for base in thing.__mro__:
                if base.__module__.startswith("cachee_shm"):
                    yield from (
                        (f"{name}.{key}", value) for key, value in vars(base).items() if key[0] != "_"
                    )


def test_public_names_have_docstrings():
    missing = [name for name, thing in public_functions() if callable(thing) and not inspect.getdoc(thing)]
    assert missing == []


def test_both_packages_say_that_they_are_typed():
    for folder in SOURCES.values():
        assert (folder / "py.typed").exists()


# Files


def test_the_top_level_is_fixed():
    assert {entry.name for entry in ROOT.iterdir()} - MADE_BY_TOOLS <= TOP_LEVEL


@pytest.mark.parametrize("path", files(".py", ".c", ".h"), ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX


def test_no_work_is_left_in_the_sources_as_a_note():
    unfinished = r"\b(TO" + "DO|FIX" + "ME|XX" + "X)\\b"
    assert naming(unfinished, files(".py", ".c", ".h")) == set()
