from __future__ import annotations

import os

import pytest
import torch

from penstock.errors import UnsupportedError
from penstock.parallel.meeting import Meeting
from penstock.parallel.ranks import RankGroup


def test_its_files_are_closed_once() -> None:
    meeting = Meeting.call(2)
    pulses = meeting.pulses()
    meeting.close()
    meeting.close()
    pulses[2] = 5  # what is mapped stays
    assert pulses[2] == 5
    for fd in meeting.fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_shared_memory_is_for_the_cpu() -> None:
    meeting = Meeting.call(2)
    with pytest.raises(UnsupportedError, match="--device cpu"):
        meeting.connect(RankGroup(0, 2), torch.device("cuda"), "shared_memory", lambda: False)
    meeting.close()
