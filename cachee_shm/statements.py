"""Which SQL statements are surely reads. Every other statement may write.

Only the text is looked at, so the answer errs on one side. A read that is taken for a write makes a
transaction bypass the cache earlier than it has to. A write that is taken for a read would leave a stale
value. ``SELECT f()`` may write if ``f`` is a function that somebody defined. Only the functions that are
named here are known to change nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["READ_FUNCTIONS", "is_read"]

STATEMENT_CHARACTERS_MAX = 1 << 16  # a longer one is not looked through: it may write
REMEMBERED = 1024  # statements; a program has some hundreds, with placeholders for values


def _words(*groups: str) -> frozenset[str]:
    return frozenset(word for group in groups for word in group.split())


BEGINS_A_READ = frozenset(("select", "with", "values", "table", "show", "explain", "("))
CONTROLS = frozenset(("begin", "start", "savepoint", "release", "set"))
"""Statements that neither read nor write, and that end no transaction. ROLLBACK TO is one too: see
_is_read."""

WRITES = _words(
    """
    insert update delete merge replace into call exec execute do truncate create alter drop grant revoke
    copy lock analyze vacuum refresh comment declare fetch prepare commit rollback reindex cluster
    handler load import nextval setval
    """,
)
"""A read has none of these words outside of quotes, unless as the name of a function below."""

READ_FUNCTIONS = _words(
    # words of SQL that a parenthesis may follow
    """
    all and any array as between by case coalesce cast collate distinct else end except exists extract
    filter from group having ilike in inner intersect interval is join lateral like limit materialized
    not null nullif offset on or order outer over overlaps partition position recursive row rows select
    similar some substring table then trim union unnest using values when where with within
    """,
    # types
    """
    bit char character decimal double float nchar numeric nvarchar time timestamp timestamptz varbit
    varchar varying
    """,
    # functions of PostgreSQL, MariaDB, MySQL and SQLite that change nothing
    """
    abs acos age array_agg array_length array_position array_to_string ascii asin atan atan2 avg bit_and
    bit_length bit_or bool_and bool_or btrim ceil ceiling char_length character_length chr concat
    concat_ws convert cos cot count cume_dist curdate current_database current_date current_schema
    current_setting current_time current_timestamp curtime database date date_add date_format date_part
    date_sub date_trunc datediff datetime day dayofmonth dayofweek dayofyear dense_rank every exp
    first_value floor format from_unixtime generate_series greatest group_concat grouping hex hour if
    ifnull initcap instr isnull json_agg json_array_elements json_array_length json_build_array
    json_build_object json_each json_extract json_extract_path json_extract_path_text json_object
    json_object_agg json_type json_unquote json_valid jsonb_agg jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_extract_path jsonb_extract_path_text jsonb_object_agg jsonb_path_exists jsonb_path_query
    jsonb_typeof julianday lag last_day last_value lcase lead least left length ln locate log log10 log2
    lower lpad ltrim make_date make_interval max md5 microsecond mid min minute mod month monthname now
    nth_value ntile octet_length overlay percent_rank percentile_cont percentile_disc period_diff
    pg_backend_pid pi plainto_tsquery phraseto_tsquery pow power quarter quote rand random rank
    regexp_like regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr
    repeat replace reverse right round row_number row_to_json rpad rtrim second sha1 sha2 sign sin
    split_part sqrt stddev stddev_pop stddev_samp str_to_date strftime string_agg string_to_array strpos
    substr sum sysdate tan timediff timestampadd timestampdiff to_char to_date to_json to_jsonb to_number
    to_timestamp to_tsquery to_tsvector total translate trunc truncate ts_headline ts_rank ts_rank_cd
    typeof ucase unhex unix_timestamp upper utc_timestamp uuid var_pop var_samp variance version week
    weekday width_bucket word_similarity similarity year
    """,
)
"""Words that may come before a parenthesis in a read."""

QUOTED = re.compile(
    r"""--[^\r\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\$(\w*)\$.*?\$\1\$""",
    re.DOTALL,
)
WORD = re.compile(r"[^\W\d][\w$.]*(\s*\()?|\]?\s*\(|;|['\"`]|/\*|\*/|\$\w*\$")
AMBIGUOUS = re.compile(r"/\*M?!|\\['\"]|--\S|/\*(?:(?!\*/).)*/\*|\#(?![>-])", re.DOTALL)
"""Text that databases read differently, so that a statement with it may write. MariaDB runs ``/*! ... */``
and needs a blank after ``--``. PostgreSQL has comments within comments. ``#`` begins a comment in one and is
an operator in the other. A backslash before a quote may end the string or not."""


@lru_cache(REMEMBERED)
def _is_read(statement: str) -> bool:
    if AMBIGUOUS.search(statement):
        return False
    text = QUOTED.sub(_placeholder, statement).lower().strip().rstrip(";")
    words = [word.group() for word in WORD.finditer(text)]
    first = _name(words[0]) if words else ""
    if first == "set":
        return all(_changes_nothing(word) for word in words[1:])
    if first in CONTROLS or text.startswith("rollback to"):
        return ";" not in words
    if first not in BEGINS_A_READ or (first == "explain" and "analyze" in text):
        return False
    return all(_changes_nothing(word) for word in words)


def _placeholder(quoted: re.Match[str]) -> str:
    """A quoted name may be a function's."""
    return " quoted " if quoted.group()[0] in '"`' else " "


def _name(word: str) -> str:
    return word.rstrip("( \t\r\n") or word


def _changes_nothing(word: str) -> bool:
    name = _name(word)
    if word == "(":
        return True
    if word.endswith("("):
        return name.removeprefix("pg_catalog.") in READ_FUNCTIONS
    return name not in WRITES and name not in (";", "'", '"', "`", "/*") and not name.startswith("$")


def is_read(statement: str | bytes) -> bool:
    """Whether a statement surely changes nothing. ``SELECT ... FOR UPDATE`` announces a write: it is none."""
    if isinstance(statement, bytes):
        statement = statement.decode("utf-8", "replace")
    return len(statement) <= STATEMENT_CHARACTERS_MAX and _is_read(statement)
