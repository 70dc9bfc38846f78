"""Transactions of django on real databases: the stale row without the helper, and none with it."""

import asyncio
import contextlib
import contextvars

import pytest

from tests import machine

machine.require("Django")
import pymysql  # noqa: E402

import cachee_shm.django  # noqa: E402

KEY = "user:1"
LEVELS = ["READ COMMITTED", "REPEATABLE READ"]
TABLE = "cachee_django_users"


def configuration(server, engine, level):
    if engine.endswith("mysql"):
        options = {"isolation_level": level.lower()}
    else:
        from psycopg import IsolationLevel

        options = {"isolation_level": IsolationLevel[level.replace(" ", "_")]}
    return {
        "ENGINE": engine,
        "NAME": server["database"],
        "USER": server["user"],
        "HOST": server["host"],
        "PORT": server["port"],
        "OPTIONS": options,
        "TEST": {},
    }


@pytest.fixture(scope="module")
def databases(project, postgres, mariadb):
    """Both databases at both levels; "-other" is another connection to the same."""
    pymysql.install_as_MySQLdb()
    databases = {"default": {}}
    for name, server, engine in (
        ("postgres", postgres, "django.db.backends.postgresql"),
        ("mariadb", mariadb, "django.db.backends.mysql"),
    ):
        for level in LEVELS:
            for other in ("", "-other"):
                databases[f"{name} {level}{other}"] = configuration(server, engine, level)
    from django.db import connections

    of_before = project.DATABASES
    use(databases)
    yield databases
    connections.close_all()
    use(of_before)


def use(databases):
    from django.conf import settings
    from django.db import connections

    settings.DATABASES = databases
    vars(connections).pop("settings", None)
    connections._settings = None


@pytest.fixture(params=[f"{name} {level}" for name in ("postgres", "mariadb") for level in LEVELS])
def alias(request, databases):
    from django.db import connections

    with connections[request.param].cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        cursor.execute(f"CREATE TABLE {TABLE} (id integer PRIMARY KEY, name varchar(40))")
        cursor.execute(f"INSERT INTO {TABLE} VALUES (1, 'old')")
    forget(request.param)
    yield request.param
    forget(request.param)


def forget(alias):
    """Its connections; new ones are watched by nobody until somebody asks."""
    from django.db import connections
    from django.db.backends.signals import connection_created

    connection_created.disconnect(dispatch_uid=cachee_shm.django.OURS)

    for name in (alias, f"{alias}-other"):
        connections[name].close()
        del connections[name]


@pytest.fixture
def watching():
    cachee_shm.django.watch()


@pytest.fixture(params=[False, True], ids=["without", "with"])
def watched(request, alias):
    if request.param:
        request.getfixturevalue("watching")
    return request.param


def name_in(alias):
    return run(alias, f"SELECT name FROM {TABLE} WHERE id = 1")


def run(alias, statement):
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def update(alias, name="new"):
    run(alias, f"UPDATE {TABLE} SET name = '{name}' WHERE id = 1")


def atomic(alias, **options):
    from django.db import transaction

    return transaction.atomic(using=alias, **options)


def what_others_read(cache, alias):
    return contextvars.Context().run(cache.get_or_load, KEY, name_in, f"{alias}-other")


class Undone(Exception):
    pass


def undone(alias, work, *args, **options):
    with pytest.raises(Undone), atomic(alias, **options):
        work(*args)
        raise Undone


def test_a_row_that_was_rolled_back_is_not_cached(cache, alias, watched):
    def work():
        update(alias, "never")
        assert cache.get_or_load(KEY, name_in, alias) == "never"

    undone(alias, work)
    assert (what_others_read(cache, alias) != name_in(alias)) is not watched


def test_what_was_invalidated_before_the_commit_is_not_filled_before_it(cache, alias, watched):
    with atomic(alias):
        update(alias)
        cache.delete(KEY)
        assert what_others_read(cache, alias) == "old"
    assert (what_others_read(cache, alias) != name_in(alias)) is not watched


def test_an_old_snapshot_fills_no_old_row(cache, alias, watched):
    with atomic(alias):
        run(alias, f"SELECT count(*) FROM {TABLE}")  # its snapshot
        update(f"{alias}-other")
        cache.delete(KEY)
        seen = cache.get_or_load(KEY, name_in, alias)
    assert (what_others_read(cache, alias) != name_in(alias)) is (seen == "old" and not watched)


@pytest.fixture
def one(databases):
    from django.db import connections

    alias = "postgres READ COMMITTED"
    with connections[alias].cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        cursor.execute(f"CREATE TABLE {TABLE} (id integer PRIMARY KEY, name varchar(40))")
        cursor.execute(f"INSERT INTO {TABLE} VALUES (1, 'old')")
    forget(alias)
    yield alias
    forget(alias)


def test_a_savepoint_that_is_undone_leaves_the_transaction_writing(cache, one, watching):
    with atomic(one):
        undone(one, update, one, "never")
        assert cache.get_or_load(KEY, name_in, one) == "old"
        assert KEY not in cache
        update(one)
        cache.delete(KEY)
    assert what_others_read(cache, one) == "new"


def test_what_was_invalidated_in_a_savepoint_is_announced_after_the_commit(cache, one, watching):
    with atomic(one):
        with atomic(one):
            update(one)
            cache.delete(KEY)
        what_others_read(cache, one)
    assert KEY not in cache


def test_functions_of_on_commit_run_after_the_announcement(cache, one, watching):
    from django.db import transaction

    seen = []
    with atomic(one, durable=True):
        update(one)
        cache.delete(KEY)
        what_others_read(cache, one)
        transaction.on_commit(lambda: seen.append(cache.get(KEY)), using=one)
    assert seen == [None]


def test_a_commit_that_is_refused_within_a_block_ends_no_transaction(cache, one, watching):
    from django.db import transaction

    with atomic(one):
        update(one)
        with pytest.raises(transaction.TransactionManagementError):
            transaction.commit(using=one)
        cache.get_or_load(KEY, name_in, one)
    assert KEY not in cache


def test_a_connection_that_is_closed_within_a_block_ends_its_transaction(cache, one, watching):
    from django.db import connections

    with pytest.raises(Undone), atomic(one):
        update(one)
        cache.delete(KEY)
        connections[one].close()
        raise Undone
    assert what_others_read(cache, one) == "old"
    assert cache.get(KEY) == "old"


def test_without_autocommit_each_commit_ends_a_transaction(cache, one, watching):
    from django.db import transaction

    transaction.set_autocommit(False, using=one)
    update(one)
    cache.delete(KEY)
    what_others_read(cache, one)
    transaction.commit(using=one)
    assert KEY not in cache
    update(one, "never")
    assert cache.get_or_load(KEY, name_in, one) == "never"
    transaction.rollback(using=one)
    transaction.set_autocommit(True, using=one)
    assert cache.get_or_load(KEY, name_in, one) == "new"


@pytest.mark.parametrize("debug", [False, True])
def test_a_stored_procedure_may_write(cache, one, watching, debug):
    from django.db import connections

    cache.set(KEY, "old")
    connections[one].force_debug_cursor = debug
    with atomic(one), connections[one].cursor() as cursor:
        cursor.execute("SELECT 1")
        assert KEY in cache
        with pytest.raises(Exception), atomic(one):  # noqa: B017 - no database has it, and psycopg no such verb
            cursor.callproc("cachee_no_such_procedure")
        assert KEY not in cache
    assert KEY in cache


def test_of_two_databases_each_has_a_transaction_of_its_own(cache, one, watching):
    other = "mariadb READ COMMITTED"
    with atomic(other):
        run(other, "SELECT 1")
        with atomic(one):
            update(one)
            cache.delete(KEY)
            what_others_read(cache, one)
        assert KEY not in cache
        assert cache.get_or_load(KEY, name_in, one) == "new"
        assert KEY not in cache  # it might be of the other database's snapshot
    assert what_others_read(cache, one) == "new"
    assert KEY in cache


def test_a_view_of_atomic_requests_bypasses_the_cache_once_it_has_written(cache, one, watching):
    from django.core.handlers.base import BaseHandler
    from django.db import connections

    def view(request):
        update(one)
        cache.delete(KEY)
        return cache.get_or_load(KEY, name_in, one)

    connections[one].settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert BaseHandler().make_view_atomic(view)(None) == "new"
    finally:
        connections[one].settings_dict["ATOMIC_REQUESTS"] = False
    assert KEY not in cache
    assert what_others_read(cache, one) == "new"


def test_an_async_view_reads_past_the_cache_once_a_thread_of_its_has_written(cache, one, watching):
    from asgiref.sync import sync_to_async
    from django.db import transaction

    def begin_and_write():
        transaction.set_autocommit(False, using=one)
        update(one)

    def end():
        transaction.rollback(using=one)
        transaction.set_autocommit(True, using=one)
        forget(one)

    async def view():
        cache.set(KEY, "cached")
        await sync_to_async(begin_and_write)()
        seen = cache.get(KEY)
        await sync_to_async(end)()
        return seen, cache.get(KEY)

    assert asyncio.run(view()) == (None, "cached")


@contextlib.contextmanager
def of_a_test_case(alias):
    """As TestCase wraps each test."""
    block = atomic(alias)
    block._from_testcase = True
    with pytest.raises(Undone), block:
        yield
        raise Undone


def test_the_block_that_a_test_case_is_wrapped_in_is_no_transaction(cache, one, watching):
    with of_a_test_case(one):
        update(one)
        cache.set(KEY, "cached")
        assert cache.get(KEY) == "cached"


def test_within_a_test_case_the_outermost_block_of_the_code_is_the_transaction(cache, one, watching):
    with of_a_test_case(one):
        with atomic(one):
            with atomic(one):
                update(one)
                cache.delete(KEY)
            what_others_read(cache, one)
            assert cache.get(KEY) is None  # it has written
        assert KEY not in cache
        undone(one, update, one, "never")
        assert cache.get_or_load(KEY, name_in, one) == "new"
        assert cache.get(KEY) == "new"


def test_a_transaction_that_began_before_anybody_watched_is_one_that_writes(cache, one):
    with atomic(one):
        update(one)
        cachee_shm.django.watch()
        assert cache.get_or_load(KEY, name_in, one) == "new"
        assert KEY not in cache
    assert what_others_read(cache, one) == "new"


def test_who_writes_by_other_means_than_cursors_says_so(cache, one, watching):
    """A driver's own methods, which no wrapper of django's sees."""
    from django.db import connections

    def write(name):
        with connections[one].connection.cursor() as cursor:
            cursor.execute(f"UPDATE {TABLE} SET name = '{name}' WHERE id = 1")

    with atomic(one):
        cachee_shm.django.may_write(one)
        write("new")
        assert cache.get_or_load(KEY, name_in, one) == "new"
        assert KEY not in cache
    cache.delete(KEY)
    assert what_others_read(cache, one) == "new"

    cachee_shm.django.may_write(one)  # in autocommit each statement is committed by itself
    write("newer")
    cache.delete(KEY)
    assert what_others_read(cache, one) == "newer"
    assert KEY in cache
