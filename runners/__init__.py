"""When and where work is done: the plan, the executor, the runners and the command line."""
