"""Transactions of SQLAlchemy on real databases: the stale row without the helper, and none with it."""

import asyncio
import contextlib
import contextvars

import pytest

from tests import machine

machine.require("SQLAlchemy")
import sqlalchemy  # noqa: E402
from sqlalchemy import event, text  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column  # noqa: E402

import cachee_shm.sqlalchemy  # noqa: E402

KEY = "user:1"
LEVELS = ["READ COMMITTED", "REPEATABLE READ"]
DRIVERS = {"postgres": "postgresql+psycopg", "mariadb": "mysql+pymysql"}


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "cachee_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sqlalchemy.String(40))


@contextlib.contextmanager
def watching(engine):
    """``watch``, and no longer: other tests show what happens without it."""
    cachee_shm.sqlalchemy.watch(engine)
    try:
        yield
    finally:
        for target, name, listener in cachee_shm.sqlalchemy._listeners(engine):
            event.remove(target, name, listener)


def url(server, database, driver=None):
    return sqlalchemy.URL.create(
        driver or DRIVERS[database],
        username=server["user"],
        host=server["host"],
        port=server["port"],
        database=server["database"],
    )


@pytest.fixture(params=["postgres", "mariadb"])
def database(request):
    return request.param


@pytest.fixture(params=LEVELS)
def engine(request, database):
    server = request.getfixturevalue(database)
    made = sqlalchemy.create_engine(url(server, database), isolation_level=request.param)
    Base.metadata.drop_all(made)
    Base.metadata.create_all(made)
    with Session(made) as session, session.begin():
        session.add(User(id=1, name="old"))
        session.add(User(id=2, name="another"))
    yield made
    made.dispose()


@pytest.fixture(params=[False, True], ids=["without", "with"])
def watched(request, engine):
    if not request.param:
        yield False
        return
    with watching(engine):
        yield True


def name_in(session):
    return session.scalar(text("SELECT name FROM cachee_users WHERE id = 1"))


def update(session, name="new"):
    session.execute(text("UPDATE cachee_users SET name = :name WHERE id = 1"), {"name": name})


def what_others_read(cache, engine):
    with Session(engine) as session:
        return cache.get_or_load(KEY, name_in, session)


def in_the_database(engine):
    with Session(engine) as session:
        return name_in(session)


def test_a_row_that_was_rolled_back_is_not_cached(cache, engine, watched):
    with Session(engine) as session:
        update(session, "never")
        assert cache.get_or_load(KEY, name_in, session) == "never"
        session.rollback()
    stale = what_others_read(cache, engine) != in_the_database(engine)
    assert stale is not watched


def test_what_was_invalidated_before_the_commit_is_not_filled_before_it(cache, engine, watched):
    with Session(engine) as session:
        update(session)
        cache.delete(KEY)
        before = what_others_read_in_another_context(cache, engine)
        assert before == "old"
        session.commit()
    stale = what_others_read(cache, engine) != in_the_database(engine)
    assert stale is not watched


def what_others_read_in_another_context(cache, engine):
    return contextvars.Context().run(what_others_read, cache, engine)


def test_an_old_snapshot_fills_no_old_row(cache, engine, watched):
    with Session(engine) as session:
        session.scalar(text("SELECT count(*) FROM cachee_users"))  # its snapshot
        written_by_another(cache, engine)
        seen = cache.get_or_load(KEY, name_in, session)
    stale = what_others_read(cache, engine) != in_the_database(engine)
    assert stale is (seen == "old" and not watched)


def written_by_another(cache, engine):
    with Session(engine) as other, other.begin():
        update(other)
    cache.delete(KEY)


# On PostgreSQL alone


@pytest.fixture
def one(postgres):
    made = sqlalchemy.create_engine(url(postgres, "postgres"))
    Base.metadata.drop_all(made)
    Base.metadata.create_all(made)
    with Session(made) as session, session.begin():
        session.add(User(id=1, name="old"))
    with watching(made):
        yield made
    made.dispose()


def test_an_orm_flush_and_a_bulk_statement_write(cache, one):
    for change in (change_object, change_in_bulk):
        with Session(one) as session:
            change(session)
            assert cache.get_or_load(KEY, name_in, session) == "never"
            assert elsewhere(cache.get, KEY) is None


def change_object(session):
    session.get(User, 1).name = "never"
    session.flush()


def change_in_bulk(session):
    session.execute(sqlalchemy.update(User).values(name="never"))


def test_an_object_that_was_changed_and_not_flushed_yet_is_not_stored(cache, one):
    with Session(one, autoflush=False) as session:
        session.get(User, 1).name = "never"
        assert cache.get_or_load(KEY, lambda: session.get(User, 1).name) == "never"
    assert what_others_read(cache, one) == "old"


def test_what_is_deleted_before_the_flush_is_deleted_again_after_the_commit(cache, one):
    with Session(one) as session:
        session.get(User, 1).name = "new"
        cache.delete(KEY)
        assert what_others_read_in_another_context(cache, one) == "old"
        session.commit()
    assert what_others_read(cache, one) == "new"


def test_a_connection_without_a_session_has_transactions(cache, one):
    with one.connect() as connection:
        update(connection, "new")
        cache.delete(KEY)
        assert what_others_read_in_another_context(cache, one) == "old"
        connection.commit()
        assert cache.get(KEY) is None
        assert cache.get_or_load(KEY, name_in, connection) == "new"
    assert cache.get(KEY) == "new"


def test_a_connection_that_is_closed_without_an_end_has_ended(cache, one):
    with one.connect() as connection:
        update(connection, "never")
        assert cache.get_or_load(KEY, name_in, connection) == "never"
    assert what_others_read(cache, one) == "old"
    assert cache.get(KEY) == "old"


def test_a_savepoint_that_is_undone_leaves_the_transaction_writing(cache, one):
    with Session(one) as session:
        savepoint = session.begin_nested()
        update(session, "never")
        savepoint.rollback()
        update(session)
        cache.delete(KEY)
        assert what_others_read_in_another_context(cache, one) == "old"
        session.commit()
    assert what_others_read(cache, one) == "new"


def test_a_commit_in_two_phases_announces(cache, one):
    with Session(one, twophase=True) as session:
        update(session)
        cache.delete(KEY)
        assert what_others_read_in_another_context(cache, one) == "old"
        session.commit()
    assert what_others_read(cache, one) == "new"


def test_in_autocommit_each_statement_is_committed(cache, one):
    with one.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        update(connection)
        assert cache.get_or_load(KEY, name_in, connection) == "new"
        assert cache.get(KEY) == "new"


def test_other_means_of_writing_are_said(cache, one):
    with Session(one) as session:
        cachee_shm.sqlalchemy.may_write(session)
        session.connection().connection.cursor().execute("UPDATE cachee_users SET name = 'never'")
        assert cache.get_or_load(KEY, name_in, session) == "never"
    assert what_others_read(cache, one) == "old"


def test_async_sessions_have_transactions(cache, one, postgres):
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(url(postgres, "postgres", "postgresql+asyncpg"))

    async def load(session):
        return await session.scalar(text("SELECT name FROM cachee_users WHERE id = 1"))

    async def run():
        async with AsyncSession(engine) as session:
            await asyncio.wait_for(session.execute(text("UPDATE cachee_users SET name = 'never'")), 30)
            seen = await cache.aget_or_load(KEY, load, session)
            await session.rollback()
            await session.execute(text("UPDATE cachee_users SET name = 'new'"))
            cache.delete(KEY)
            before = what_others_read_in_another_context(cache, one)
            await session.commit()
        await engine.dispose()
        return seen, before

    cachee_shm.sqlalchemy.watch(engine)
    assert asyncio.run(run()) == ("never", "old")
    assert what_others_read(cache, one) == "new"


def elsewhere(function, *args):
    return contextvars.Context().run(function, *args)
