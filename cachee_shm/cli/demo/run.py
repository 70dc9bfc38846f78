"""The stages of a demo: start, meet, load (and cut), settle, stop, check, report."""

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cachee_shm.cli.demo import checker, journal
from cachee_shm.cli.demo.hosts import CAPPED_S, Host, make_hosts, shop_folder
from cachee_shm.cli.demo.live import Counters, Screen
from cachee_shm.cli.demo.processes import Child, Crew, DemoError, Ended
from cachee_shm.cli.demo.summary import Cut, Summary

START_S = 60.0  # a cold start of eight workers on a slow, busy machine
SETTLE_S = 15.0  # longer than a bridge waits before it connects again
POLL_S = 0.1
LOADS = 2  # processes that send requests
CUSTOMERS = 4  # per such process and core
BOUND_NS = 1_000_000_000  # a read later than this after a write's return must show it, whatever happened
CUT_BEGIN, CUT_LENGTH = 0.2, 0.6  # as parts of the load's time


def run(options: argparse.Namespace) -> int:
    """Runs one demo. The exit code: 0 fine, 1 not, 128 + the signal where one ended it."""
    folder = Path(tempfile.mkdtemp(prefix="cachee-demo-"))
    code = 1
    try:
        with Crew(folder, keep_folder=options.keep_logs) as crew, Screen() as screen:
            code = Demo(options, folder, crew, screen).run()
    except DemoError as error:
        print(f"cachee demo: {error}", file=sys.stderr)
    except Ended as ended:
        code = 128 + int(ended.args[0])
        print("cachee demo: ended early; nothing is left running", file=sys.stderr)
    if options.keep_logs:
        print(f"logs and journals: {folder}")
    return code


class Demo:
    def __init__(self, options: argparse.Namespace, folder: Path, crew: Crew, screen: Screen) -> None:
        self._options = options
        self._folder = folder
        self._crew = crew
        self._screen = screen
        self._hosts = make_hosts(folder, options.port_base)
        self._database = folder / "shop.sqlite3"
        self._bridges: list[Child] = []
        self._shops: list[Child] = []
        self._warmers: list[Child] = []
        self._counters = Counters([host.name for host in self._hosts])
        self._cut: Cut | None = None

    def run(self) -> int:
        self.start_hosts()
        observer, prober = self.start_helpers()
        self.wait_until_met()
        begin_ns = time.monotonic_ns()
        self.load()
        self.finish(prober)
        self.settle()
        self.finish(observer)
        self.stop_hosts()
        return self.conclude(begin_ns)

    def start_hosts(self) -> None:
        self._screen.phase("starting two hosts: a bridge and gunicorn on each")
        make_database(self._database)
        for host in self._hosts:
            self._crew.own(host)
            bridge = ["cachee_bridge", "--config", str(host.config)]
            self._bridges.append(self._crew.server(f"{host.label}-bridge", bridge))
            self._shops.append(self.start_shop(host))
        for host in self._hosts:
            self.wait_until_serving(host)
            if not self._options.cut:  # a cut is about what is stale
                warm = ["cachee_shm.cli", "warm", "--app", "app:warmed"]
                self._warmers.append(self.of_shop(f"{host.label}-warm", warm, host))

    def start_shop(self, host: Host) -> Child:
        arguments = ["gunicorn", "app:app", "--bind", f"127.0.0.1:{host.http_port}"]
        arguments += [
            "--workers",
            str(self._options.workers),
            "--pid",
            str(self._folder / f"{host.label}.pid"),
        ]
        return self.of_shop(f"{host.label}-shop", arguments, host)

    def of_shop(self, name: str, arguments: list[str], host: Host) -> Child:
        env = {
            "CACHEE_CONFIG": str(host.config),
            "SHOP_DATABASE": str(self._database),
            "SHOP_HOST": host.name,
        }
        return self._crew.server(name, arguments, cwd=shop_folder(), env=env)

    def wait_until_serving(self, host: Host) -> None:
        deadline = time.monotonic() + START_S
        while not answers(host):
            self._crew.check()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{host.label} did not answer within {START_S:g} s; --keep-logs keeps its log"
                )
            time.sleep(POLL_S)

    def start_helpers(self) -> tuple[Child, Child]:
        hosts = [f"{host.name}={host.config}" for host in self._hosts]
        return self.helper("observe", "observe", *hosts), self.helper("probe", "probe", *hosts)

    def helper(self, name: str, module: str, *arguments: str) -> Child:
        path = self._folder / f"{name}.journal"
        return self._crew.helper(name, module, ["--journal", str(path), *arguments])

    def wait_until_met(self) -> None:
        self._screen.phase("waiting until the hosts have met")
        self.pump_until(START_S, "the hosts did not meet", lambda: self._counters.have_met)
        self._counters.begin()

    def load(self) -> None:
        """Wait until all customers are done. With a cut, stop the bridges meanwhile."""
        self._screen.phase("customers read and write on both hosts")
        loads = self.start_loads()
        self.pump_until(START_S, "the customers did not come", lambda: self._counters.requests > 0)
        begin = time.monotonic()
        while not all(load.name in self._counters.done for load in loads):
            passed_s = time.monotonic() - begin
            if passed_s > self._options.seconds + START_S:
                raise DemoError("the customers did not leave")
            if self._options.cut:
                self.cut_if_due(passed_s / self._options.seconds)
            self.pump()
            self._screen.show(self._counters, passed_s)
        self.end_cut()  # on a busy machine the customers may have left before it was due
        for load in loads:
            self.finish(load)

    def start_loads(self) -> list[Child]:
        customers = CUSTOMERS * min(os.cpu_count() or 1, 8)
        hosts = [f"{host.name}={host.url}" for host in self._hosts]
        common = ["--seconds", str(self._options.seconds), "--customers", str(customers), *hosts]
        return [self.helper(f"load-{n}", "load", "--seed", str(n), *common) for n in range(LOADS)]

    def cut_if_due(self, passed: float) -> None:
        """`passed` is the part of the load's time that is over."""
        if self._cut is None and passed >= CUT_BEGIN:
            self._screen.phase("both bridges are stopped: the hosts are cut off from each other")
            self._cut = Cut(time.monotonic_ns())
            self.signal_bridges(signal.SIGSTOP)
        elif passed >= CUT_BEGIN + CUT_LENGTH:
            self.end_cut()

    def end_cut(self) -> None:
        if self._cut is not None and self._cut.end_ns is None:
            self._screen.phase("the bridges go on")
            self.signal_bridges(signal.SIGCONT)
            self._cut.end_ns = time.monotonic_ns()

    def signal_bridges(self, number: int) -> None:
        for bridge in self._bridges:
            bridge.signal(number)

    def settle(self) -> None:
        """Wait until each host has applied all that the other announced."""
        self._screen.phase("waiting until the hosts agree")
        after_ns = time.monotonic_ns()
        self.pump_until(SETTLE_S, "the hosts did not agree", lambda: self._counters.agreed_ns > after_ns)

    def pump_until(self, timeout_s: float, failure: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise DemoError(f"{failure} within {timeout_s:g} s; --keep-logs keeps the bridges' logs")
            self.pump()

    def pump(self) -> None:
        for child, message in self._crew.messages(POLL_S):
            self._counters.take(child.name, message)

    def finish(self, helper: Child) -> None:
        for message in self._crew.finish(helper):
            self._counters.take(helper.name, message)

    def stop_hosts(self) -> None:
        self._screen.phase("stopping both hosts")
        for server in (*self._warmers, *self._shops, *self._bridges):
            self._crew.end(server)

    def conclude(self, begin_ns: int) -> int:
        self._screen.phase("checking every answer against the database")
        records = journal.read(sorted(self._folder.glob("*.journal")))
        evidence = checker.gather(records, read_history(self._database))
        verdict = checker.check(evidence, BOUND_NS)
        self._screen.close()
        summary = Summary(evidence, verdict, self._counters, begin_ns, self._cut, round(CAPPED_S * 1e9))
        print(summary.text())
        return 0 if summary.fine else 1


def make_database(path: Path) -> None:
    """Make the database with the shop's own code, in another process: the demo does not import the shop."""
    code = "import sys, database; database.create(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=shop_folder(), check=True)


def answers(host: Host) -> bool:
    try:
        urllib.request.urlopen(f"{host.url}/prices/1", timeout=5).close()
    except OSError:
        return False
    return True


def read_history(path: Path) -> checker.History:
    found: dict[str, dict[int, int]] = defaultdict(dict)
    with closing(sqlite3.connect(path)) as database:
        for key, version, at_ns in database.execute("SELECT key, version, at_ns FROM history"):
            found[key][version] = at_ns
    return found
