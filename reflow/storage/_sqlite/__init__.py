"""The parts of `SQLiteStorage`. Reading order: schema, verbs, connection, lane, reader. The last two are where async
code ends and threads begin."""
