"""The parts of `SQLiteStorage`. Reading order: schema, verbs, connection, lane. The last is where async
code ends and threads begin."""
