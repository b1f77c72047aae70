"""Facts between services: consumers, the relay's and the bus' public names."""

from servicekit.events.bus import Bus
from servicekit.events.consumers import Consumers
from servicekit.events.envelope import Event, Permanent
from servicekit.events.replicas import ReplicaSource
from servicekit.events.resources import Resources

__all__ = ["Bus", "Consumers", "Event", "Permanent", "ReplicaSource", "Resources"]
