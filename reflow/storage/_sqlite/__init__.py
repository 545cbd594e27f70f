"""The parts of `SQLiteStorage`, all of them synchronous but for the lane: schema, verbs, connection, lane."""
