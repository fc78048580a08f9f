from __future__ import annotations

import torch

from penstock.quant.plain import PLAIN

CPU = torch.device("cpu")


def test_storage_is_the_matrix_itself() -> None:
    matrix = PLAIN.matrix(4, 3, torch.bfloat16, CPU)
    first, second = torch.randn(1, 3).bfloat16(), torch.randn(3, 3).bfloat16()
    matrix.place(0, 1).copy_(first)
    matrix.place(1, 3).copy_(second)
    whole = torch.cat([first, second])
    assert torch.equal(matrix.values, whole)
    x, bias = torch.randn(5, 3).bfloat16(), torch.randn(4).bfloat16()
    assert torch.equal(matrix(x, bias), torch.nn.functional.linear(x, whole, bias))
    assert matrix.place(1, 3).nbytes == 3 * 3 * 2


def test_a_table_looks_up_and_multiplies() -> None:
    table = PLAIN.table(5, 2, torch.float32, CPU)
    table.place(0, 5).copy_(torch.arange(10.0).view(5, 2))
    assert table.rows(torch.tensor([4, 0])).tolist() == [[8, 9], [0, 1]]
    assert table.logits(torch.tensor([[1.0, 0.0]])).tolist() == [[0, 2, 4, 6, 8]]
