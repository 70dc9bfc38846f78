"""Which statements are taken for reads. What may write and is taken for a read would be a stale value."""

import pytest

from cachee_shm.statements import is_read

READS = [
    "SELECT 1",
    "  select name from users where id = %s;",
    "(SELECT 1) UNION (SELECT 2)",
    "SELECT count(*), max(u.id) FROM users AS u WHERE u.id IN (1, 2) AND EXISTS (SELECT 1 FROM x)",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "WITH RECURSIVE t AS (SELECT 1) SELECT * FROM t",
    "SELECT is_deleted, updated_at, set_id FROM inserts",
    "SELECT 'insert into x', \"delete\" FROM t -- update",
    "SELECT /* update */ 1",
    "SELECT `update` FROM t -- delete",
    "SELECT a #> '{b}' FROM t",
    "SELECT $$delete$$",
    "SELECT CAST(x AS NUMERIC(10, 2)) FROM t",
    "SELECT pg_catalog.lower(name) FROM t",
    "VALUES (1, 2)",
    "SHOW TRANSACTION ISOLATION LEVEL",
    "EXPLAIN SELECT 1",
    "SET LOCAL statement_timeout = 0",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')",
    "SET STATEMENT max_statement_time=1 FOR SELECT * FROM t",
    "SELECT x[1] FROM t WHERE x[2] IN (1)",
    "SAVEPOINT s",
    "RELEASE SAVEPOINT s",
    "ROLLBACK TO SAVEPOINT s",
    "SELECT x FROM t LOCK IN SHARE MODE".replace("LOCK IN", "FOR").replace("MODE", ""),
    b"SELECT 1",
]

WRITES = [
    "",
    "INSERT INTO t VALUES (1)",
    "update t set a = 1",
    "DELETE FROM t",
    "MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING",
    "REPLACE INTO t VALUES (1)",
    "TRUNCATE t",
    "CREATE TABLE t (id int)",
    "CALL p()",
    "DO $$ BEGIN END $$",
    "COPY t FROM STDIN",
    "COMMIT",
    "ROLLBACK",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * INTO copy FROM t",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
    "SELECT 1; UPDATE t SET a = 1",
    "SET x = 1; UPDATE t SET a = 1",
    "SELECT charge(1)",
    "SELECT billing.charge (1)",
    'SELECT "charge"(1)',
    "SELECT `charge`(1)",
    "SELECT nextval('s')",
    "SET STATEMENT max_statement_time=1 FOR UPDATE t SET a = 1",
    "SET @x = charge(1)",
    "SET @x = (SELECT charge(1))",
    "SET @x = 1, @y = (SELECT charge(1))",
    "SELECT prélève(1)",
    "SELECT é(1)",
    "SELECT [charge](1)",
    "SELECT 1 -- a carriage return ends it\r; DELETE FROM t",
    "SELECT 5--1 FROM (SELECT charge(1)) t",
    "SELECT a --charge(1)",
    "SELECT a # charge(1) FROM t",
    "SELECT 1 /* /* */ ' */ ; DELETE FROM t --'",
    "SELECT setval('s', 1)",
    "SELECT /*!50000 sql_calc() */ 1",
    "SELECT '\\'' ; UPDATE t SET x = '",
    "SELECT 'never closed",
    "SELECT 1 /* never closed",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN (ANALYZE) SELECT charge(1)",
    "COMMIT PREPARED 'x'",
    "FETCH ALL FROM c",
    "PRAGMA user_version = 1",
    "LOCK TABLE t",
    "SELECT 1" + " " * 70_000,
]


@pytest.mark.parametrize("statement", READS)
def test_a_statement_that_only_reads_is_a_read(statement):
    assert is_read(statement)


@pytest.mark.parametrize("statement", WRITES)
def test_a_statement_that_may_write_is_no_read(statement):
    assert not is_read(statement)
