"""A disk that misbehaves: power cuts, I/O errors, no space left.

How it works. A process of its own works on a SQLite file by way of `vfs`, which lets everything through to a real file
and notes it in a log: each write, truncation, sync, creation and deletion, in the order in which they happened, and
between them what Reflow was asked to store and what it has acknowledged (`recorder`). From that log, `model` tells what
a power cut after any operation leaves behind. The test process lays those files down, opens them with the real
`SQLiteStorage`, on the real driver, and looks at what is there and whether it goes on (`judge`). So one recording is
cut everywhere. The same `vfs` can also refuse an operation, once or until there is space again.

The driver of the standard library has no way to put something between SQLite and the file. `apsw` does, and has a
SQLite of its own, which must not meet another one in one process (https://sqlite.org/howtocorrupt.html, 2.2.1).
So what uses it is a process of its own, in which `driver` gives connections of `apsw` the face of the standard ones and
nothing else opens files.
"""
