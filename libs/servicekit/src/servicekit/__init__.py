"""Mechanisms shared by the services. Import by module: ``from servicekit.errors import ErrorSpec``."""

import os

# gRPC's fork handlers run in every child that is forked from a serving process, also in one that goes on to exec, and
# end about one of twenty with a signal. A process that only execs needs none of them. Read when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
