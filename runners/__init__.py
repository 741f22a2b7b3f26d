"""When and where work is done: the plan, the executor, the runners and the command line."""

KEEPS_MEMORY = ("MIMALLOC_PURGE_DELAY", "-1")
"""An environment variable of our own processes, read as pyarrow is loaded: its allocator keeps what it has for the next
rows. Given back to the system in between, a twentieth of the time goes into getting it again."""
