"""The services that a snapshot and events tell of."""

from __future__ import annotations

import unittest

from rollbook.roll import Roll
from rollbook.wire import Frame


def event(word: str, index: int, instance: str, methods: list[str], version: str = "1") -> Frame:
    service = {"name": "users", "version": version, "methods": methods}
    return {"type": "event", "event": f"service-{word}", "index": index, "instance_id": instance, "service": service}


class RollTest(unittest.TestCase):
    def setUp(self) -> None:
        self.roll = Roll()
        row = {"name": "users", "version": "1", "methods": ["a", "b"], "instances": 2}
        self.roll.reset(10, [row, {**row, "name": "mail"}])

    def shown(self) -> tuple[str, list[str], int]:
        service = self.roll.services["users"]
        return service["version"], service["methods"], service["instances"]

    def test_a_snapshot_is_everything(self) -> None:
        self.assertEqual(self.shown(), ("1", ["a", "b"], 2))
        services = self.roll.services
        self.roll.reset(3, [])
        self.assertEqual(services, {})

    def test_what_the_snapshot_or_an_event_has_told_is_not_told_again(self) -> None:
        self.assertFalse(self.roll.apply(event("connect", 10, "x", ["c"])))
        self.assertTrue(self.roll.apply(event("connect", 12, "x", ["c"], "2")))
        self.assertFalse(self.roll.apply(event("connect", 12, "x", ["c"], "2")))
        self.assertEqual(self.shown(), ("2", ["a", "b", "c"], 3))

    def test_instances_leave_with_their_methods(self) -> None:
        self.roll.apply(event("connect", 11, "x", ["b", "c"], "2"))
        self.roll.apply(event("disconnect", 12, "of the snapshot", ["a"]))
        self.assertEqual(self.shown(), ("2", ["a", "b", "c"], 2))
        self.roll.apply(event("disconnect", 13, "also", ["b"]))
        self.assertEqual(self.shown(), ("2", ["b", "c"], 1))
        self.roll.apply(event("disconnect", 14, "x", ["b", "c"], "2"))
        self.assertEqual(self.roll.services["users"]["instances"], 0)
        self.assertTrue(self.roll.apply(event("offline", 15, "x", ["b", "c"])))
        self.assertEqual(list(self.roll.services), ["mail"])

    def test_an_instance_that_is_replaced_is_one(self) -> None:
        self.roll.apply(event("offline", 11, "of the snapshot", []))
        for index, word, methods in ((12, "connect", ["a"]), (13, "online", ["a"]), (14, "disconnect", ["a"])):
            self.assertTrue(self.roll.apply(event(word, index, "x", methods)))
        self.roll.apply(event("connect", 15, "x", ["b"], "2"))
        self.assertEqual(self.shown(), ("2", ["b"], 1))

    def test_an_offline_without_anything_before_it_is_nothing(self) -> None:
        self.roll.apply({**event("offline", 11, "", []), "instance_id": None})
        self.roll.apply({**event("offline", 12, "", []), "instance_id": None})
        self.assertEqual(list(self.roll.services), ["mail"])
