"""Nodes, as every store promises them: who they are, and that one is drained."""

from pathlib import Path

import pytest

from engine.model.node import NODES, News, Said
from engine.queue.errors import NoSuchNode
from tests.unit.queue.support import Opened
from tests.waiting import until


async def test_a_queue_that_is_one_engines_alone_has_no_nodes_and_another_names_them(
    opened: Opened, tmp_path: Path
) -> None:
    async with opened(tmp_path) as spool:
        nodes = spool.queue.nodes
        assert [state.name for state in await nodes.all()] == [nodes.name] * bool(nodes.name)
        assert not nodes.is_drained
        with pytest.raises(NoSuchNode):
            await nodes.ask("nobody", b"?", 1.0)
        for change in (nodes.drain, nodes.undrain):
            with pytest.raises(NoSuchNode):
                await change("nobody", "me")
        assert spool.kinds() == []


async def test_a_node_is_drained_until_that_is_undone_and_each_is_told(opened: Opened, tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        nodes, heard = spool.queue.nodes, list[News]()
        if not nodes.name:
            pytest.skip("has no nodes")
        spool.queue.on_news = heard.append
        assert await nodes.drain(nodes.name, "me")
        await until(lambda: nodes.is_drained)
        assert heard == [NODES]
        assert not await nodes.drain(nodes.name, "other")
        (state,) = await nodes.all()
        assert (state.is_drained, state.drained_by, state.is_this, state.is_lost) == (True, "me", True, False)
        assert await nodes.undrain(nodes.name, "me")
        await until(lambda: not nodes.is_drained)
        assert not await nodes.undrain(nodes.name, "me")
        assert [(event.kind, event.by) for event in spool.events] == [("drained", "me"), ("undrained", "me")]


async def test_a_node_that_is_drained_is_so_after_a_restart(opened: Opened, tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        if not spool.queue.nodes.name:
            pytest.skip("has no nodes")
        await spool.queue.nodes.drain(spool.queue.nodes.name, "me")
    async with opened(tmp_path) as spool:
        assert spool.queue.nodes.is_drained


async def test_what_a_node_says_of_itself_is_seen_with_its_next_heartbeat(opened: Opened, tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        nodes, said = spool.queue.nodes, Said(state="relaying", connections=3, trouble="a\x1b[31m" + "b" * 400)
        if not nodes.name:
            pytest.skip("has no nodes")
        nodes.report = lambda: said
        await nodes.drain(nodes.name, "me")  # which is told at once
        await until(lambda: nodes.is_drained)
        (state,) = await nodes.all()
        assert state.said.connections == 3
        assert "\x1b" not in state.said.trouble
        assert len(state.said.trouble) <= 300
