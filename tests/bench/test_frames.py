"""The load generator's counter: what it counts must not depend on how the bytes are cut."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frames import FrameCounter, masked


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65536:
        return bytes([first, 126]) + size.to_bytes(2) + payload
    return bytes([first, 127]) + size.to_bytes(8) + payload


def count(stream: bytes, cuts: list[int]) -> tuple[int, FrameCounter]:
    counter = FrameCounter()
    edges = [0, *sorted(cuts), len(stream)]
    return sum(counter.feed(stream[a:b]) for a, b in itertools.pairwise(edges)), counter


@given(sizes=st.lists(st.sampled_from([0, 1, 125, 126, 128, 300, 66_000]), max_size=8), seed=st.integers(0, 10_000))
def test_frames_of_any_size_cut_anywhere(sizes: list[int], seed: int) -> None:
    stream = b"".join(frame(bytes([size % 251]) * size) for size in sizes)
    cuts = random.Random(seed).sample(range(len(stream) + 1), min(5, len(stream) + 1))
    found, counter = count(stream, cuts)
    assert found == len(sizes)
    assert counter.between_frames


def test_a_burst_of_equal_frames_is_counted_in_one_go() -> None:
    found, counter = count(frame(b"x" * 128) * 50, [])
    assert found == 50
    assert counter.between_frames


def test_payload_that_looks_like_headers_is_not_counted() -> None:
    found, _ = count(frame(frame(b"x" * 20) * 4) + frame(b"y" * 88), [])
    assert found == 2


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_ping_between_frames_is_kept_and_not_counted(cut: int) -> None:
    found, counter = count(frame(b"hi", 0x89) + frame(b"text"), [cut])
    assert found == 1
    assert counter.control == [(0x9, b"hi")]


def test_it_is_not_between_frames_in_the_middle_of_one() -> None:
    counter = FrameCounter()
    assert counter.feed(frame(b"x" * 128)[:50]) == 0
    assert not counter.between_frames
    assert counter.feed(frame(b"x" * 128)[50:]) == 1
    assert counter.between_frames


def test_a_client_frame_is_masked_with_zeros() -> None:
    assert masked(0xA, b"ab") == b"\x8a\x82\0\0\0\0ab"
    assert masked(1, b"x" * 300) == b"\x81\xfe\x01\x2c\0\0\0\0" + b"x" * 300
