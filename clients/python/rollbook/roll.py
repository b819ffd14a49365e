"""The services that are there: a snapshot and the events behind it."""

from .wire import Frame


class Roll:
    """Keeps ``services`` right: name, version (of the newest instance), methods (of all) and number of instances.
    Raises ``KeyError`` or ``TypeError`` for frames that are malformed."""

    def __init__(self) -> None:
        self.services: dict[str, Frame] = {}
        # What each instance of each service offers; "" stands for those of the snapshot, which only counts them.
        self._offers: dict[str, dict[str, Frame]] = {}
        self._index = -1

    def reset(self, index: int, rows: list[Frame]) -> None:
        """Takes a snapshot in place of everything that was known."""
        self._index, self._offers = index, {row["name"]: {"": row} for row in rows}
        self.services.clear()
        self.services.update((row["name"], row) for row in rows)

    def apply(self, frame: Frame) -> bool:
        """Takes an event; ``False`` when the snapshot or an earlier event has told of it."""
        event, instance, offer, name = frame["event"], frame["instance_id"], frame["service"], frame["service"]["name"]
        known = event in ("service-connect", "service-online", "service-disconnect", "service-offline")
        if not known or frame["index"] <= self._index:
            return False
        self._index, offers = frame["index"], self._offers.setdefault(name, {})
        if event == "service-disconnect" and instance not in offers and "" in offers:
            offers[""] = {**offers[""], "instances": max(0, offers[""]["instances"] - 1)}
        elif event in ("service-connect", "service-disconnect"):
            offers.pop(instance, None)
        if event == "service-connect":
            offers[instance] = {**offer, "instances": 1}
        left = [offer for offer in offers.values() if offer["instances"]]
        methods = dict.fromkeys(method for offer in left for method in offer["methods"])
        together = {"methods": list(methods), "instances": sum(offer["instances"] for offer in left)}
        self.services[name] = {**(left or [offer])[-1], **together}
        if event == "service-offline":
            del self._offers[name], self.services[name]
        return True
