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
        ["errors", "config", "mistakes", "ports", "shape", "service"],
        ["extensions", "registry", "compression"],
        ["arrays", "classes"],
        ["packing"],
        ["codec", "keys", "statements"],
        ["segment", "events", "waiting", "gathering"],
        ["asking"],
        ["explain"],
        ["near", "loads", "fetching", "loading", "many", "locks", "host", "synced", "health", "orders"],
        ["timeouts"],
        ["cached", "filling", "origins"],
        ["cache"],
        ["bypass"],
        ["attaching", "transactions", "prewarm"],
        ["backing"],
        ["cachelib"],
        [
            *("__init__", "cli", "sqlalchemy", "http", "testing"),
            *("aiocache", "cashews", "celery", "dogpile", "flask", "jinja", "litestar", "otel", "starlette"),
        ],
    ],
}
SOURCES = {"cachee_shm": ROOT / "cachee_shm", "cachee_bridge": ROOT / "bridge" / "cachee_bridge"}

# The bridge's sub-packages: each imports only itself and those above it.
BRIDGE = [
    "wire",
    "ports",
    "streams",
    "sources",
    "membership",
    "links",
    "routing",
    "protocol",
    "checker",
    "system",
    "carriers",
    "shell",
    "http",
    "daemon",
]
# The protocol is a function of bytes, records and `now`: what would make it anything else is not imported.
PROTOCOL = BRIDGE[: BRIDGE.index("checker") + 1]
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
BRIDGE_DEPTH_MAX, BRIDGE_LINES_MAX, BRIDGE_METHODS_MAX, BRIDGE_FUNCTION_LINES_MAX = 10, 400, 25, 50


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


@pytest.mark.parametrize("path", sorted(CORE.glob("*.[ch]")), ids=name_of)
def test_lines_of_the_core_have_at_most_110_columns(path):
    """clang-format leaves comments as they are."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{number}: {line}" for number, line in enumerate(lines, 1) if len(line) > 110] == []


# What may include what: each file of the core stands on a floor, and includes what stands on a lower one, or
# beside it where that makes no circle. NAME is NAME.c and NAME.h. A new file is given its floor here.
CORE_FLOORS = [
    ["atomics", "msgpack", "frame_layout"],
    ["layout", "hash"],
    ["attachment", "clock", "geometry"],
    ["fence", "pages", "roster", "doorbell", "journal"],
    ["ring", "policy", "queue", "lease", "lock", "prewarm"],
    ["index", "peers"],
    ["doubt", "survey", "roster_debts", "census"],
    ["evict", "span", "write", "arming"],
    ["lag"],
    ["cache", "cas"],
    ["canary"],
    ["recovery"],
    ["relay", "relay_buckets", "orphan", "segment", "older", "stream_in", "stream_out"],
]


def included() -> dict[str, set[str]]:
    """Of each file of the core, by its noun, which others it includes."""
    graph: dict[str, set[str]] = {}
    for path in sorted(CORE.glob("*.[ch]")):
        found = re.findall(r'^\s*#\s*include\s+"(\w+)\.h"', path.read_text(encoding="utf-8"), re.M)
        graph.setdefault(path.stem, set()).update(set(found) - {path.stem})
    return graph


def core_floor_of(noun: str) -> int:
    if noun.startswith("module"):
        return len(CORE_FLOORS)
    for number, nouns in enumerate(CORE_FLOORS):
        if noun in nouns:
            return number
    raise AssertionError(f"cachee_shm/core/{noun} has no floor: give it one in tests/test_house.py")


# The prefix of a file's functions, where it is not the file's name.
PREFIXES = {"relay_buckets": "buckets", "roster_debts": "debts"}


def test_a_static_function_of_the_core_is_called_after_its_file():
    definition = re.compile(r"^static (?!inline)[^;={}]*?\b(\w+)\(", re.M)
    strange, count = [], 0
    for path in sorted(CORE.glob("*.c")):
        if path.stem.startswith("module"):
            continue
        names = definition.findall(path.read_text(encoding="utf-8"))
        prefixes = (f"{path.stem}_", f"{PREFIXES.get(path.stem, path.stem)}_")
        strange += [f"{path.name}: {name}" for name in names if not name.startswith(prefixes)]
        count += len(names)
    assert strange == []
    assert count > 250


def test_the_core_includes_downward():
    upward = [
        f"{noun} (floor {core_floor_of(noun)}) includes {other}.h"
        for noun, others in included().items()
        for other in others
        if core_floor_of(other) > core_floor_of(noun)
    ]
    assert upward == []


def test_the_core_and_its_binding_include_nothing_in_a_circle():
    graph = included()
    while graph:
        ends = {noun for noun, others in graph.items() if not others & graph.keys()}
        assert ends, f"a circle among {sorted(graph)}"
        graph = {noun: others for noun, others in graph.items() if noun not in ends}


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


# The bridge


def bridge_modules() -> dict[str, Path]:
    """By name below cachee_bridge: "wire.frames"."""
    folder = SOURCES["cachee_bridge"]
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in sorted(folder.rglob("*.py"))
    }


def bridge_imports() -> dict[str, set[str]]:
    """Of each module of the bridge, those of the bridge that it imports, also inside of a function."""
    names = bridge_modules()
    graph = {}
    for module, path in names.items():
        wanted = {name.removeprefix("cachee_bridge.") for name in imported(path) if "cachee_bridge" in name}
        graph[module] = {name if name in names else name.rpartition(".")[0] for name in wanted} - {module}
    return graph


def package_of(module: str) -> str:
    return module.partition(".")[0] if "." in module else "top"


def test_every_module_of_the_bridge_stands_in_a_sub_package():
    assert {package_of(module) for module in bridge_modules()} == {*BRIDGE, "top"}
    assert {module for module in bridge_modules() if package_of(module) == "top"} == {"__init__", "__main__"}


def test_a_sub_package_of_the_bridge_imports_only_those_above_it():
    order = [*BRIDGE, "top"]
    upward = [
        f"{module} imports {other}"
        for module, others in bridge_imports().items()
        for other in others
        if order.index(package_of(other)) > order.index(package_of(module))
    ]
    assert upward == []


def test_imports_of_the_bridge_have_no_cycle_and_are_not_deep():
    graph, depth = bridge_imports(), 0
    while graph:
        ends = {module for module, others in graph.items() if not others & graph.keys()}
        assert ends, f"a cycle among {sorted(graph)}"
        graph = {module: others for module, others in graph.items() if module not in ends}
        depth += 1
    assert depth <= BRIDGE_DEPTH_MAX


@pytest.mark.parametrize("path", bridge_modules().values(), ids=name_of)
def test_a_file_of_the_bridge_is_short_and_its_classes_and_functions_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= BRIDGE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            verbs = [
                child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            assert len(verbs) <= BRIDGE_METHODS_MAX, f"{node.name} has {len(verbs)} methods"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= BRIDGE_FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def test_the_protocol_does_no_input_and_output_and_knows_no_segment():
    for module, path in bridge_modules().items():
        for name in imported(path) if package_of(module) in PROTOCOL else ():
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
