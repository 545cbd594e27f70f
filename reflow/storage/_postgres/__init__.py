"""What only Postgres has: connections that may break, locks of rows, notifications, and statements over arrays.

Reading order: values, arrays, pooler, connection, schema, session, claims, writes, notices, clock, copying.
"""
