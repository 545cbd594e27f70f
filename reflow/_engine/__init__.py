"""The engine: the only ring that waits.

clock       what time it is, and waiting for an event or a time
registry    the workflows an engine was given
inspection  what a run looks like from outside
scopes      whether a workflow body has left a cancel scope open
perform     one attempt of a step body
streams     lifecycle events on their way to a reader
observers   hooks and streams: who is told of lifecycle events
runner      one claimed run: load, replay, perform, record, until it parks or ends
lease       heartbeats for all runs that are held
worker      the claim loop and the slots
ends        the ends of runs, and who waits for them
client      verbs that need no worker: enqueue, get_run, handle
engine      class Engine: a client with a worker
script      reflow.run
"""
