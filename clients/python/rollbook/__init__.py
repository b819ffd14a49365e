"""Client of the rollbook service bus: services, consumers and the event log over a WebSocket."""

from .client import Client
from .subscription import Event, Subscription
from .wire import Published, RollbookError

connect = Client
__all__ = ["Client", "Event", "Published", "RollbookError", "Subscription", "connect"]
