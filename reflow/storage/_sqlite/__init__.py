"""What only SQLite has: a file, its locks, and statements that need not say which rows they lock.

Reading order: schema, connection, session, claims, copying. Verbs and the lane are in `_sql`.
"""
