"""What SQLite and Postgres have in common: tables, verbs, and the lane that shares transactions among them.

Reading order: session, tables, verbs, lane, transactions, storage.
"""
