"""The tables of a journal in SQLite, and its versions."""

# A journal in which a user was erased is of the second version: a program that knows only the first would read that
# user's imported events again. One with changes to the catalogue is of the third: others would show what was deleted.
# One with upserts is of the fourth: others would know nothing of new products, and build indexes without them.
VERSION, ERASED_VERSION, CHANGED_VERSION, UPSERTED_VERSION = 1, 2, 3, 4

EVENTS = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    item INTEGER NOT NULL,
    event_time INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    request_id TEXT,
    query TEXT,
    product_id TEXT NOT NULL,
    position INTEGER,
    quantity REAL,
    price REAL,
    value REAL,
    UNIQUE (event_id, item)
)
"""
# Who was erased is kept as a digest under a key of this journal's own, and when, in Unix microseconds.
ERASURES = (
    """CREATE TABLE IF NOT EXISTS erasures (
        number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, erased_at INTEGER NOT NULL
    )""",
    "CREATE TABLE IF NOT EXISTS digest_key (key BLOB NOT NULL)",
)
# First what nobody is named in, of the sessions in which the user was known, while these are known themselves.
ERASE = (
    """DELETE FROM events WHERE user_id IS NULL
       AND session_id IN (SELECT session_id FROM events WHERE user_id = :user AND session_id IS NOT NULL)""",
    "DELETE FROM events WHERE user_id = :user",
)
# A product's row is replaced by one with a new number: whoever has read up to a number finds what changed since.
CHANGES = """
CREATE TABLE IF NOT EXISTS changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    product_id TEXT NOT NULL UNIQUE,
    price REAL,
    price_time INTEGER NOT NULL,
    in_stock INTEGER,
    stock_time INTEGER NOT NULL,
    deleted_time INTEGER NOT NULL
)
"""
UPSERTS = """
CREATE TABLE IF NOT EXISTS upserts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    product_id TEXT NOT NULL UNIQUE,
    time INTEGER NOT NULL,
    product TEXT NOT NULL,
    encoder TEXT NOT NULL,
    vector BLOB
)
"""
