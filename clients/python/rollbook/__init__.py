"""Client of the rollbook service bus: services, consumers and the event log over a WebSocket."""

from .client import Client
from .subscription import Event, Subscription
from .wire import RollbookError

connect = Client
__all__ = ["Client", "Event", "RollbookError", "Subscription", "connect"]
