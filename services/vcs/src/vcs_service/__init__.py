"""Version control: repositories, branches, commits and merges."""

# Before anything imports grpc: this service starts git while it serves, see there.
import servicekit as servicekit
