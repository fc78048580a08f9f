"""/v1/embeddings, /v1/score and /generate against a real server; transformers is the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
import transformers

from penstock.text.tokenizer import Tokenizer
from tests.server.conftest import KEY
from tests.server.process import Server

TEXTS = ["Hello, fox!", "Once upon a time there was a fox. " * 30, "x"]


@pytest.fixture(scope="module")
def oracle(checkpoint: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.load(checkpoint)


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as made:
        yield made


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_embeddings_are_the_pooled_states(
    server: Server, oracle: Any, tokenizer: Tokenizer, pooling: str
) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        create = client.embeddings.create
        extra = {"pooling": pooling}
        for _ in range(2):  # the second time some of it is in the cache
            reply = create(model="tiny", input=TEXTS, extra_body=extra)
        floats = create(model="tiny", input=TEXTS, encoding_format="float", extra_body=extra)
        plain = create(model="tiny", input=TEXTS[:1], extra_body=extra | {"normalize": False})
        with pytest.raises(openai.BadRequestError) as caught:
            create(model="tiny", input="x", dimensions=3)
    assert caught.value.param == "dimensions"
    for text, found, again in zip(TEXTS, reply.data, floats.data, strict=True):
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.inference_mode():
            states = oracle.model(ids).last_hidden_state[0]
        expected = states[-1] if pooling == "last" else states.mean(0)
        assert torch.allclose(torch.tensor(found.embedding), expected / expected.norm(), atol=1e-5)
        assert found.embedding == pytest.approx(again.embedding, abs=1e-6)
        if text == TEXTS[0]:
            assert plain.data[0].embedding == pytest.approx(expected.tolist(), abs=1e-4)
    assert reply.usage.prompt_tokens == sum(len(tokenizer.encode(text)) for text in TEXTS)


def test_scores_are_the_models_logprobs(
    http: httpx.Client, oracle: Any, tokenizer: Tokenizer
) -> None:
    context, continuations = "Once upon", [" a time", " the fox said"]
    body = {"context": context, "continuation": continuations}
    reply = http.post("/v1/score", json=body).json()
    for found, continuation in zip(reply["data"], continuations, strict=True):
        ids = tokenizer.encode(context + continuation)
        start = len(tokenizer.encode(context))
        with torch.inference_mode():
            logprobs = oracle(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))]
        assert found["token_ids"] == ids[start:]
        assert found["token_logprobs"] == pytest.approx(expected, abs=1e-4)
        assert found["logprob"] == pytest.approx(sum(expected), abs=1e-3)
        greedy = all(logprobs[i - 1].argmax() == ids[i] for i in range(start, len(ids)))
        assert found["is_greedy"] == greedy
    assert http.post("/v1/score", json={"context": "", "continuation": "x"}).status_code == 400


def test_an_echo_scores_a_prompt_exactly(
    http: httpx.Client, oracle: Any, tokenizer: Tokenizer
) -> None:
    body = {"prompt": TEXTS[1], "echo": True, "logprobs": 1, "max_tokens": 0}
    (choice,) = http.post("/v1/completions", json=body).json()["choices"]
    ids = tokenizer.encode(TEXTS[1])
    with torch.inference_mode():
        logprobs = oracle(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [logprobs[i - 1, ids[i]].item() for i in range(1, len(ids))]
    assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(expected, abs=1e-4)


def test_ids_in_ids_out(http: httpx.Client, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Once upon")
    body = {"token_ids": ids, "max_tokens": 8, "temperature": 0, "ignore_eos": True, "logprobs": 2}
    (choice,) = http.post("/generate", json=body).json()["choices"]
    assert len(choice["token_ids"]) == 8
    assert [p["id"] for p in choice["logprobs"]] == choice["token_ids"]
    assert all(len(p["top"]) == 1 and p["rank"] == 1 for p in choice["logprobs"])
    text = {"prompt": ids, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    extra = {"return_token_ids": True}
    (same,) = http.post("/v1/completions", json=text | extra).json()["choices"]
    assert same["token_ids"] == choice["token_ids"]
    streamed: list[int] = []
    with http.stream("POST", "/generate", json=body | {"stream": True}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                (part,) = httpx.Response(200, text=line[6:]).json()["choices"]
                streamed += part["token_ids"]
    assert streamed == choice["token_ids"]
    assert http.post("/generate", json={"token_ids": [10**6]}).status_code == 400
    assert http.post("/generate", json={"token_ids": []}).status_code == 400
