"""The pure core: what a run *is*, without I/O, clock, entropy or event loop.

A run is a generator plus a journal. The generator yields *commands*; the journal holds an *entry* for each outcome, in
the order in which outcomes arrived. `Replay` (replay.py) feeds entries to the generator: each must meet an open command
at its position, and feeding it may open new ones. When the journal is used up, the open commands are what must be
performed; performing one makes an entry, which is fed in the same way. Live and replay are one code path.

The law, checked over random programs in tests/core/test_replay_properties.py: for every program, every order of
completion and every prefix of the journal, replaying the prefix and going on gives what the uninterrupted run gave.

Reading order: duration, status, journal, failure, retry, schedule, command, definition, steps, waits, values, groups,
runs, performed, nodes, location, program, stored, replay. A module imports only from those before it. Small helpers
beside them: forgotten and misuse for commands, derived for programs, digest and context for replay. cut says what
`resume` keeps, transcript writes a run as text.
"""
