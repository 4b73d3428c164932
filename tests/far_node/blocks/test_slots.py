"""Sessions that share a forward pass compute what each computes alone, and leave nothing to each other."""

from __future__ import annotations

import mmap
import random
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.slots import Slab, SlotRows, batching_obstacle, resumes
from far_node.blocks.source import find_model
from far_node.errors import BadPosition
from tests.support.architectures import ARCHITECTURES, Architecture, make_architecture
from tests.support.models import KINDS, make_model
from tests.support.talks import Talk, difference, noise, slab_of, step_together

TOLERANCE = 1e-4
BEGINS_ANEW = ("falcon_mamba", "jamba", "mamba")
RECURRENT = ("lfm2_moe", "mamba2", "qwen3_next", *BEGINS_ANEW)
MORE = ("falcon, alibi", "gpt_oss", "deepseek_v3", "gemma3_text", *RECURRENT)
ALL = (*KINDS, *MORE)
PACKED = ("llama", "gpt2", "mistral", "qwen3", "mixtral", "opt", "gemma3_text")

Make = Callable[[str], Blocks]


def architecture(name: str) -> Architecture:
    return next(one for one in ARCHITECTURES if one.name == name)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Blocks 1:5 of six of a kind, made once."""

    @cache
    def made(kind: str) -> Blocks:
        directory = tmp_path_factory.mktemp("models") / "model"
        path: Path = make_model(directory, kind) if kind in KINDS else make_architecture(directory, architecture(kind))
        return load_blocks(find_model(str(path)), 1, 5)

    return made


@pytest.fixture(params=ALL)
def blocks(request: pytest.FixtureRequest, make: Make) -> Blocks:
    return make(request.param)


@pytest.fixture(params=[(kind, False) for kind in ALL] + [(kind, True) for kind in PACKED], ids=str)
def sharing(request: pytest.FixtureRequest, make: Make, monkeypatch: pytest.MonkeyPatch) -> Blocks:
    """Blocks and one of the two ways in which rows of different lengths stand in one pass: padded, or packed."""
    kind, packs = request.param
    blocks = make(kind)
    assert packs <= blocks.packs
    monkeypatch.setattr(blocks, "packs", packs)
    return blocks


class TestTogether:
    """Batched equals unbatched."""

    @pytest.mark.parametrize("seed", range(2))
    def test_any_mixture_of_sessions_computes_what_each_would_alone(self, sharing: Blocks, seed: int) -> None:
        blocks = sharing
        chance = random.Random(seed)
        slabs = slab_of(64, 8), slab_of(96, 8)
        places = [(slabs[0], 0, 1), (slabs[0], 1, 2), (slabs[0], 3, 1), (slabs[1], 2, 1), (slabs[1], 0, 2)]
        talks = [Talk(blocks, SlotRows(*place)) for place in places]
        together = 0
        for number in range(16):
            chosen = _some_of(talks, chance)
            for talk in chosen:
                _go_back_or_choose_rows(talk, chance)
            if blocks.has_recurrent_state:  # those who begin go apart
                chosen = [talk for talk in chosen if bool(talk.length) == bool(chosen[0].length)]
            count = chance.choice([1, 1, 1, 2, 5, 11])
            counts = [chance.choice([1, 1, 2, 9]) if blocks.packs else count for _ in chosen]
            hidden = [noise(blocks, n, rows=t.rows.count, seed=number) for t, n in zip(chosen, counts, strict=True)]
            assert max(step_together(chosen, hidden)) < TOLERANCE
            together += len(chosen) > 1
        assert together > 4
        assert max(talk.length for talk in talks) > 16, "long enough for every window"

    def test_a_session_that_begins_stands_beside_one_that_is_long(self, sharing: Blocks) -> None:
        blocks = sharing
        slab = slab_of(64, 3)
        long, fresh, short = (Talk(blocks, SlotRows(slab, row, 1)) for row in (0, 1, 2))
        long.step(noise(blocks, 30))
        short.step(noise(blocks, 2, seed=1))
        company = [long, short] if blocks.has_recurrent_state else [long, fresh, short]
        for step in range(4):
            hidden = [noise(blocks, 1, seed=10 * step + at) for at in range(len(company))]
            assert max(step_together(company, hidden)) < TOLERANCE

    def test_the_order_in_which_sessions_are_named_is_that_of_the_answers(self, sharing: Blocks) -> None:
        blocks = sharing
        slab = slab_of(64, 4)
        talks = [Talk(blocks, SlotRows(slab, row, 1)) for row in (3, 0, 2, 1)]
        assert max(step_together(talks, [noise(blocks, 4, seed=at) for at in range(4)])) < TOLERANCE
        for talk, count in zip(talks, (5, 1, 3, 2), strict=True):
            talk.step(noise(blocks, count, seed=count))
        assert max(step_together(talks, [noise(blocks, 1, seed=9 + at) for at in range(4)])) < TOLERANCE

    def test_sessions_may_run_a_part_of_the_blocks(self, sharing: Blocks) -> None:
        blocks = sharing
        slab = slab_of(64, 2)
        rows = [SlotRows(slab, row, 1) for row in range(2)]
        caches = [blocks.new_cache() for _ in rows]
        for number, counts in enumerate([(6, 6), (1, 1), (1, 1)]):
            hidden = [noise(blocks, count, seed=number + 7 * at) for at, count in enumerate(counts)]
            got = blocks.run_together(list(zip(hidden, rows, strict=True)), 2, 4)
            for one, told, alone in zip(got, hidden, caches, strict=True):
                assert difference(one, blocks.run(told, alone, 2, 4)) < TOLERANCE

    @pytest.mark.parametrize("kind", ["lfm2_moe", "qwen3_next", "llama"])
    def test_a_pass_through_a_part_changes_nothing_of_what_is_said_of_the_whole(self, make: Make, kind: str) -> None:
        blocks = make(kind)
        before = blocks.has_recurrent_state
        for index in range(blocks.first, blocks.end):
            blocks.run_together([(noise(blocks, 2), SlotRows(slab_of(8, 1), 0, 1))], index, index + 1)
            assert blocks.has_recurrent_state is before

    @pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2"])
    def test_after_a_pass_that_broke_all_go_on_as_if_it_had_not_been(
        self, make: Make, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocks = make(kind)
        slab = slab_of(64, 2)
        talks = [Talk(blocks, SlotRows(slab, row, 1)) for row in range(2)]
        talks[0].step(noise(blocks, 11))
        talks[1].step(noise(blocks, 3))
        broken = blocks._held[3].register_forward_pre_hook(lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            blocks.run_together([(noise(blocks, 2), talk.rows) for talk in talks], 1, 5)
        broken.remove()
        assert [talk.rows.length for talk in talks] == [11, 3]
        assert max(step_together(talks, [noise(blocks, 1, seed=at) for at in (5, 6)])) < TOLERANCE


def _some_of(talks: list[Talk], chance: random.Random) -> list[Talk]:
    roomy = [talk for talk in talks if talk.length < 48]
    return chance.sample(roomy, chance.randint(1, len(roomy)))


def _go_back_or_choose_rows(talk: Talk, chance: random.Random) -> None:
    if talk.length and chance.random() < 0.2:
        talk.rewind(0 if talk.blocks.has_recurrent_state else chance.randint(0, talk.length))
    if talk.rows.count > 1 and chance.random() < 0.3:
        talk.select_rows([chance.randrange(talk.rows.count) for _ in range(talk.rows.count)])


class TestAlone:
    """A session in slots is what it is in a cache of its own."""

    def test_a_prefill_in_chunks_is_the_prefill_in_one(self, blocks: Blocks) -> None:
        hidden = noise(blocks, 40, rows=2)
        talk = Talk(blocks, SlotRows(slab_of(64, 3), 1, 2))
        at = 0
        for count in (17, 1, 12, 2, 8):
            assert talk.step(hidden[:, at : at + count]) < TOLERANCE
            at += count

    def test_a_cache_of_its_own_takes_chunks_as_well(self, blocks: Blocks) -> None:
        hidden, alone = noise(blocks, 40, rows=2), blocks.new_cache()
        chunks = [blocks.run(chunk, alone, 1, 5) for chunk in torch.split(hidden, [17, 1, 12, 10], dim=1)]
        assert difference(torch.cat(chunks, dim=1), blocks.run(hidden, blocks.new_cache(), 1, 5)) < TOLERANCE

    @pytest.mark.parametrize("kind", [*KINDS, "falcon, alibi", "gpt_oss", "deepseek_v3", "gemma3_text"])
    def test_rows_padded_on_the_left_are_too(self, make: Make, kind: str) -> None:
        blocks = make(kind)
        hidden, padding = noise(blocks, 30, rows=3), (0, 5, 2)
        rows, cache = SlotRows(slab_of(64, 4), 1, 3), blocks.new_cache()
        at = 0
        for count in (12, 7, 1, 1, 9):
            told = hidden[:, at : at + count]
            (got,) = blocks.run_together([(told, rows)], 1, 5, padding)
            expected = blocks.run(told, cache, 1, 5, padding)
            for row, padded in enumerate(padding):
                first = max(0, padded - at)
                assert difference(got[row, first:], expected[row, first:]) < TOLERANCE
            at += count

    def test_rows_can_be_chosen_before_there_is_anything_in_them(self, blocks: Blocks) -> None:
        slab = slab_of(64, 4)
        Talk(blocks, SlotRows(slab, 0, 1)).step(noise(blocks, 3))
        talk = Talk(blocks, SlotRows(slab, 2, 2))
        talk.select_rows([1, 0])
        assert talk.step(noise(blocks, 3, rows=2)) < TOLERANCE


class TestGoingBack:
    """Rollback by the position at which a step starts."""

    @pytest.mark.parametrize("kind", [*KINDS, "gemma3_text", "gpt_oss"])
    @pytest.mark.parametrize("back_to", [0, 1, 5, 19, 29])
    def test_it_is_as_never_having_gone_on_also_where_windows_have_passed(
        self, make: Make, kind: str, back_to: int
    ) -> None:
        talk = Talk(make(kind), SlotRows(slab_of(64, 1), 0, 1))
        talk.step(noise(talk.blocks, 30))
        talk.rewind(back_to)
        for count in (1, 3, 1):
            assert talk.step(noise(talk.blocks, count, seed=count)) < TOLERANCE

    def test_nobody_goes_ahead_of_what_was_computed(self, blocks: Blocks) -> None:
        talk = Talk(blocks, SlotRows(slab_of(64, 1), 0, 1))
        talk.step(noise(blocks, 3))
        with pytest.raises(BadPosition, match="starts at position 4, but only 3 have been computed"):
            talk.rows.rewind(4)
        assert talk.step(noise(blocks, 2, seed=1)) < TOLERANCE, "nothing is lost"

    @pytest.mark.parametrize("kind", RECURRENT)
    def test_a_recurrent_state_goes_back_to_the_beginning_only(self, make: Make, kind: str) -> None:
        talk = Talk(make(kind), SlotRows(slab_of(64, 1), 0, 1))
        talk.step(noise(talk.blocks, 5))
        with pytest.raises(BadPosition, match="cannot go back from position 5 to 4"):
            talk.rows.rewind(4)
        assert talk.step(noise(talk.blocks, 1, seed=1)) < TOLERANCE, "nothing is lost"
        talk.rewind(0)
        assert talk.step(noise(talk.blocks, 3, seed=2)) < TOLERANCE


class TestLeftovers:
    """What a row's former owner has written reaches nobody."""

    @pytest.mark.parametrize("capacity", [64, 50], ids=["whole pages", "parts of pages"])
    def test_nothing_of_a_freed_row_meets_its_next_owner(self, sharing: Blocks, capacity: int) -> None:
        blocks = sharing
        slab = slab_of(capacity, 4)
        former = [Talk(blocks, SlotRows(slab, row, 1)) for row in range(4)]
        for talk in former:
            talk.step(noise(blocks, 20))
        with torch.inference_mode():
            for tensor in slab.all_held():
                tensor[1:3] = torch.nan
        fresh = [Talk(blocks, SlotRows(slab, row, 1)) for row in (1, 2)]
        assert max(step_together(fresh, [noise(blocks, 3, seed=at) for at in (1, 2)])) < TOLERANCE
        everybody = [former[0], *fresh, former[3]]
        for step in range(3):
            hidden = [noise(blocks, 1, seed=10 * step + at) for at in range(4)]
            assert max(step_together(everybody, hidden)) < TOLERANCE

    def test_positions_that_were_taken_back_are_not_seen(self, sharing: Blocks) -> None:
        blocks = sharing
        if blocks.has_recurrent_state:
            return  # it cannot go back
        slab = slab_of(64, 2)
        talk, longer = Talk(blocks, SlotRows(slab, 0, 1)), Talk(blocks, SlotRows(slab, 1, 1))
        longer.step(noise(blocks, 30))
        talk.step(100 * noise(blocks, 30, seed=1))
        talk.rewind(3)
        assert max(step_together([talk, longer], [noise(blocks, 1, seed=at) for at in (2, 3)])) < TOLERANCE


class TestSlab:
    """Memory for keys and values."""

    @pytest.mark.skipif(sys.platform != "linux", reason="where else pages cannot be counted")
    def test_on_a_cpu_it_takes_what_is_written_and_gives_it_back(self) -> None:
        slab, like = slab_of(4096, 16), torch.empty(1, 8, 1, 64)
        keys, values = slab.of(0, like, like)
        assert keys.shape == values.shape == (16, 8, 4096, 64)
        empty, row_bytes = _resident_bytes(keys, values), keys[0].nbytes
        assert not keys.any(), "what was never written can be read"
        assert _resident_bytes(keys, values) == empty
        keys[3, :, :1024] = 1.0
        values[5] = 1.0
        written = _resident_bytes(keys, values) - empty
        assert 1.25 * row_bytes <= written <= 2 * row_bytes, "with huge pages a little more than was written"
        slab.clear(5)
        assert _resident_bytes(keys, values) - empty == written - row_bytes
        assert not values[5].any()
        assert keys[3, :, :1024].eq(1).all(), "the others stay"
        slab.clear(3)
        assert _resident_bytes(keys, values) == empty

    def test_a_row_that_ends_within_a_page_is_cleared_and_its_neighbours_are_not(self) -> None:
        slab, like = slab_of(50, 3), torch.empty(1, 3, 1, 8)
        keys, values = slab.of(0, like, like)
        assert keys[0].nbytes % mmap.PAGESIZE
        keys.fill_(torch.nan)
        values.fill_(2.0)
        slab.clear(1)
        assert not keys[1].any()
        assert not values[1].any()
        assert keys[[0, 2]].isnan().all()
        assert values[[0, 2]].eq(2).all()

    @pytest.fixture
    def elsewhere(self) -> tuple[Slab, torch.Tensor]:
        """Not on a CPU: the tensors have as many rows as they say."""
        slab, like = Slab(64, 16), torch.empty(1, 2, 1, 4, device="meta")
        slab.rows = 3
        return slab, like

    def test_elsewhere_it_grows_with_those_who_come(self, elsewhere: tuple[Slab, torch.Tensor]) -> None:
        slab, like = elsewhere
        SlotRows(slab, 0, 3).prepare()
        assert [len(tensor) for tensor in slab.of(0, like, like)] == [3, 3]
        slab.rows = 5
        SlotRows(slab, 3, 2).prepare()
        assert [len(tensor) for tensor in slab.of(0, like, like)] == [5, 5]

    def test_elsewhere_it_keeps_what_is_in_it_when_it_grows_and_shrinks(
        self, elsewhere: tuple[Slab, torch.Tensor]
    ) -> None:
        slab, like = elsewhere
        SlotRows(slab, 0, 3).prepare()
        slab.of(0, like, like)
        for plane in slab._tensors[0]:  # the way of other devices, with numbers in it
            plane._device = torch.device("cpu")
            plane._whole = torch.zeros(3, 2, 64, 4)
        keys, _ = slab.of(0, like, like)
        keys[1] = 7.0
        slab.rows = 6
        last = SlotRows(slab, 5, 1)
        last.prepare()
        keys, _ = slab.of(0, like, like)
        assert len(keys) == 6
        assert keys[1].eq(7).all()
        assert not keys[3:].any()
        slab.rows = 2
        last.clear()
        keys, _ = slab.of(0, like, like)
        assert len(keys) == 2
        assert keys[1].eq(7).all()

    def test_a_row_that_is_given_up_while_a_pass_runs_stays_until_it_is_over(
        self, elsewhere: tuple[Slab, torch.Tensor]
    ) -> None:
        slab, like = elsewhere
        stays, goes = SlotRows(slab, 0, 1), SlotRows(slab, 2, 1)
        for rows in (stays, goes):
            rows.prepare()
        slab.of(0, like, like)
        slab.rows = 1  # the client has hung up, the pass goes on
        stays.prepare()
        late = SlotRows(slab, 1, 1)
        late.prepare()
        assert [len(tensor) for tensor in slab.of(1, like, like)] == [3, 3]
        goes.clear()
        assert [len(tensor) for tensor in slab.of(1, like, like)] == [1, 1]


def _resident_bytes(*tensors: torch.Tensor) -> int:
    """Memory behind the maps in which these stand."""
    resident, wanted = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if found:
            start, end = (int(address, 16) for address in found.groups())
            wanted = any(start < tensor.data_ptr() + tensor.nbytes and tensor.data_ptr() < end for tensor in tensors)
        elif wanted and line.startswith("Rss:"):
            resident += int(line.split()[1]) * 1024
    return resident


class TestObstacles:
    """What keeps sessions of a model apart, said in words."""

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("gpt_neo", "its local attention makes its own mask"),
            ("llama, dynamic rope", "its rotary frequencies depend on the longest row"),
            ("phi3, longrope", "its rotary frequencies depend on the longest row"),
            ("llama4_text", "its attention temperature is one for the whole batch"),
            ("deepseek_v32", "its indexed attention layers keep a cache of their own kind"),
            ("falcon_h1", "its hybrid layers keep a cache of their own kind"),
        ],
    )
    def test_each_is_named(self, name: str, reason: str) -> None:
        assert str(batching_obstacle(architecture(name).config())).startswith(reason)

    def test_those_without_one_share_a_pass(self, blocks: Blocks) -> None:
        assert blocks.one_by_one is None

    @pytest.mark.parametrize("name", ["llama, llama3 rope", "llama, yarn", "llama, linear rope", "gemma3_text"])
    def test_ropes_of_other_kinds_are_none(self, name: str) -> None:
        assert batching_obstacle(architecture(name).config()) is None

    def test_models_that_do_not_resume_and_those_that_do(self) -> None:
        assert not any(resumes(architecture(name).config()) for name in BEGINS_ANEW)
        assert all(resumes(architecture(name).config()) for name in set(MORE) - set(BEGINS_ANEW))

    @pytest.mark.parametrize(
        ("kind", "divides"),
        [("llama", True), ("qwen3_next", True), ("mamba", False), ("llama, dynamic rope", False)],
    )
    def test_only_prefills_that_are_the_same_in_chunks_are_cut(self, make: Make, kind: str, divides: bool) -> None:
        assert make(kind).divides is divides

    @pytest.mark.parametrize("kind", ["llama, dynamic rope", "phi3, longrope", "gpt_neo"])
    def test_one_by_one_sessions_do_not_meet_either(self, make: Make, kind: str) -> None:
        blocks = make(kind)
        assert blocks.one_by_one
        told = noise(blocks, 40), noise(blocks, 12, seed=1), noise(blocks, 30, seed=2)
        alone = [_in_steps(blocks, hidden) for hidden in told]
        caches = [blocks.new_cache() for _ in told]
        met: list[list[torch.Tensor]] = [[] for _ in told]
        for at in range(0, 40, 4):
            for hidden, own, answers in zip(told, caches, met, strict=True):
                if at < hidden.shape[1]:
                    answers.append(blocks.run(hidden[:, at : at + 4], own, 1, 5))
        for answers, expected in zip(met, alone, strict=True):
            assert difference(torch.cat(answers, dim=1), expected) < TOLERANCE


def _in_steps(blocks: Blocks, hidden: torch.Tensor) -> torch.Tensor:
    own = blocks.new_cache()
    steps = [blocks.run(hidden[:, at : at + 4], own, 1, 5) for at in range(0, hidden.shape[1], 4)]
    return torch.cat(steps, dim=1)
