"""Faults of what went in and came out: tokenizer, template, sampler, clients, sessions."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

from penstock.core.records import RequestRecord
from penstock.debug.findings import LEAST, Finding, Rule, ids_of, is_pattern
from penstock.debug.prefixes import Turn, turns
from penstock.observe.reader import Log

EARLY = 0.5
"""A turn that leaves the earlier prompt before this share of it has lost the cache."""
SAME = 0.5
"""Share of 8-token runs that two prompts have in common to be one conversation."""
CHATS = ("chat", "/v1/responses", "/v1/messages")
"""endpoints whose prompts a template renders"""
LOOP = 10
"""equal prompts, or equal answers, in one session"""


def _texts(log: Log) -> list[RequestRecord]:
    """Requests whose ids we made from text, and have."""
    return [r for r in log.requests if r.prompt is not None and r.prompt_ids]


def _golden(log: Log, record: RequestRecord, name: str) -> object:
    header = log.headers.get(record.start)
    return None if header is None else header.golden.get(name)


def double_bos(log: Log) -> Finding | None:
    """Prompts begin with BOS twice."""
    found = []
    for record in log.requests:
        bos = _golden(log, record, "bos")
        if bos is not None and (record.prompt_ids or [])[:2] == [bos, bos]:
            found.append(record)
    if not found:
        return None
    return Finding(
        "double-bos",
        f"{len(found)} of {len(log.requests)} prompts begin with BOS twice.",
        "BOS stands in the text (a template, or the client) and the tokenizer adds another.",
        "Take it out of the text, or send add_special_tokens=false.",
        ids_of(found),
    )


def missing_bos(log: Log) -> Finding | None:
    """The tokenizer puts BOS before a text, but many prompts have none."""
    texts = [r for r in _texts(log) if _golden(log, r, "adds_bos")]
    found = [r for r in texts if (r.prompt_ids or [-1])[0] != _golden(log, r, "bos")]
    if not is_pattern(found, texts):
        return None
    return Finding(
        "missing-bos",
        f"{len(found)} of {len(texts)} prompts of text lack the BOS that the tokenizer adds.",
        "A template without bos_token, or add_special_tokens=false where the model wants BOS.",
        "Compare the first ids with those of the model's own template.",
        ids_of(found),
    )


def no_generation_prompt(log: Log) -> Finding | None:
    """Chats that do not end with what the template writes before an answer."""
    chats, found = [], []
    for record in log.requests:
        tail = _golden(log, record, "prompt")
        if record.endpoint in CHATS and isinstance(tail, list) and tail and record.prompt_ids:
            chats.append(record)
            if record.prompt_ids[-len(tail) :] != tail:
                found.append(record)
    if not is_pattern(found, chats):
        return None
    return Finding(
        "no-generation-prompt",
        f"{len(found)} of {len(chats)} chats do not end with the template's generation prompt.",
        "add_generation_prompt=false, or another template in front of this server.",
        "Look at `POST /v1/chat/render` for one of these chats.",
        ids_of(found),
    )


def retokenized_history(log: Log) -> Finding | None:
    """A turn holds the earlier text, but its ids part inside what was sampled or sent before."""
    found = []
    for turn in turns(log.requests):
        before, text = turn.before.choices[0].text, turn.before.prompt
        if turn.whole or text is None or before is None or turn.record.prompt is None:
            continue
        if turn.record.prompt.startswith(text + before):
            found.append(turn)
    if not found:
        return None
    lost = sum(t.known + t.written - t.diverges for t in found)
    return Finding(
        "retokenized-history",
        f"{len(found)} turns repeat the text of the turn before with other ids; {lost} tokens "
        "could not come from the cache.",
        "Text does not encode to the ids that were sampled: the history was sent as text.",
        "Send ids (return_token_ids), or keep turns apart by special tokens.",
        ids_of([turn.record for turn in found]),
        {"first": [turn.diverges for turn in found[:5]]},
    )


def broken_characters(log: Log) -> Finding | None:
    """Text that was sent is not the text of its ids: cut characters, lost or repeated pieces."""
    found = [r for r in log.requests if any(c.text_differs is not None for c in r.choices)]
    if not found:
        return None
    places = [c.text_differs for r in found for c in r.choices if c.text_differs is not None]
    torn = sum("\ufffd" in (c.text or "") for r in found for c in r.choices)
    return Finding(
        "broken-characters",
        f"The text of {len(found)} answers is not that of their ids; {torn} hold U+FFFD.",
        "Tokens were decoded one by one: characters of several tokens came out in pieces.",
        "Feed ids through the incremental detokenizer; compare `text` and `ids` of one of these.",
        ids_of(found),
        {"characters": places[:5]},
    )


def look_alikes(log: Log) -> Finding | None:
    """Prompts that look the same have different characters, and so different ids."""
    forms: dict[str, dict[str, RequestRecord]] = defaultdict(dict)
    for record in _texts(log):
        text = record.prompt or ""
        forms[unicodedata.normalize("NFKC", text)].setdefault(text, record)
    found = [record for same in forms.values() if len(same) > 1 for record in same.values()]
    if not found:
        return None
    return Finding(
        "look-alikes",
        f"{len(found)} prompts look like another one and have other characters.",
        "Clients send different Unicode forms (composed and decomposed, wide and narrow).",
        "Normalise (NFC) before sending.",
        ids_of(found),
    )


def escaped_text(log: Log) -> Finding | None:
    r"""Prompts hold escapes (\n, \", \u00e9) in place of the characters."""
    texts = _texts(log)
    marks = ("\\n", '\\"', "\\u", "\\t")
    found = [
        r
        for r in texts
        if sum((r.prompt or "").count(mark) for mark in marks) >= LEAST
        and "\n" not in (r.prompt or "")
    ]
    if not is_pattern(found, texts):
        return None
    return Finding(
        "escaped-text",
        f"{len(found)} of {len(texts)} prompts are escaped twice.",
        "A client encodes its text as JSON before it encodes the body.",
        "Send the text itself.",
        ids_of(found),
    )


def greedy_not_first(log: Log) -> Finding | None:
    """Greedy requests without penalties or bias chose a token that was not the likeliest."""
    bends = (
        *("repetition_penalty", "presence_penalty", "frequency_penalty"),
        *("logit_bias", "bad_words", "min_tokens"),
    )
    greedy = [
        r
        for r in log.requests
        if r.sampling.get("temperature", 1.0) == 0.0 and not any(b in r.sampling for b in bends)
    ]
    ranks = [(r, rank) for r in greedy for c in r.choices for rank in c.ranks or ()]
    wrong = [(r, rank) for r, rank in ranks if rank != 1]
    if not wrong:
        return None
    return Finding(
        "greedy-not-first",
        f"{len(wrong)} of {len(ranks)} greedy tokens were not the likeliest.",
        "The sampler drops or misorders candidates (a kernel, a compiler, a wrong top-k).",
        "Replay one of these, then again with --attention-backend torch-reference.",
        ids_of(list({r.id: r for r, _ in wrong}.values())),
        {"ranks": [rank for _, rank in wrong[:5]]},
    )


def same_seeds(log: Log) -> Finding | None:
    """Requests without a seed of their own were given the same one."""
    seeds: dict[tuple[str, int], list[RequestRecord]] = defaultdict(list)
    for record in log.requests:
        header = log.headers.get(record.start)
        rooted = header is not None and header.config.get("model", {}).get("seed") is not None
        if not record.given_seed:
            seeds[record.start if rooted else "", record.seed].append(record)
    found = max(seeds.values(), key=len, default=[])
    if len(found) < 2:
        return None
    return Finding(
        "same-seeds",
        f"{len(found)} requests without a seed were given {found[0].seed}.",
        "The generator of seeds was copied with a snapshot, or is reset for each request.",
        "Draw seeds from the operating system after a restore.",
        ids_of(found),
    )


def sampling_changed(log: Log) -> Finding | None:
    """Between two starts, nearly all requests changed to other sampling parameters."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    by_start: dict[str, list[str]] = defaultdict(list)
    for record in log.requests:
        used = {name: record.sampling[name] for name in names if name in record.sampling}
        by_start[record.start].append(str(used))
    usual = {}
    for start, all_used in by_start.items():
        (most, count) = Counter(all_used).most_common(1)[0]
        if count >= max(5, 0.8 * len(all_used)):
            usual[start] = most
    changes = [
        (a, b) for a, b in zip(list(usual), list(usual)[1:], strict=False) if usual[a] != usual[b]
    ]
    if not changes:
        return None
    before, after = changes[-1]
    return Finding(
        "sampling-changed",
        f"Requests used {usual[before]} up to {before} and {usual[after]} from {after} on.",
        "Defaults changed: generation_config.json, or a configuration of the clients.",
        "Compare the headers' model_config of the two starts.",
        [],
        {"before": usual[before], "after": usual[after]},
    )


def lost_cache(log: Log) -> Finding | None:
    """Turns of one conversation part early in the earlier prompt, though most of it follows."""
    by_session: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns(log.requests):
        by_session[turn.session].append(turn)
    found = []
    for session in by_session.values():
        early = [t for t in session if t.known >= 32 and t.diverges < EARLY * t.known and _alike(t)]
        if len(early) >= max(2, len(session) / 2):
            found += early
    if not found:
        return None
    places = [turn.diverges for turn in found]
    return Finding(
        "lost-cache",
        f"{len(found)} turns change the prompt at token {min(places)} to {max(places)} and repeat "
        "what follows: it is computed again.",
        "The harness edits the beginning (a time stamp, the order of tools, a summary).",
        "Put what changes at the end; see `penstock logs prefix`.",
        ids_of([turn.record for turn in found]),
        {"positions": places[:5]},
    )


def _alike(turn: Turn) -> bool:
    one, other = (_runs(r.prompt_ids or []) for r in (turn.before, turn.record))
    return len(one & other) >= SAME * max(1, len(one))


def _runs(ids: list[int], size: int = 8) -> set[tuple[int, ...]]:
    return {tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)}


def runaway_loop(log: Log) -> Finding | None:
    """One session sends the same prompt, or gets the same answer, again and again."""
    by_session: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in log.requests:
        if record.session:
            by_session[record.session].append(record)
    worst: tuple[int, str, list[RequestRecord]] = (0, "", [])
    for session, records in by_session.items():
        prompts = Counter(tuple(r.prompt_ids or ()) for r in records)
        answers = Counter(tuple(r.choices[0].ids or ()) for r in records)
        most = max(c for counts in (prompts, answers) for ids, c in counts.items() if len(ids) > 1)
        worst = max(worst, (most, session, records), key=lambda item: item[0])
    count, session, records = worst
    if count < LOOP:
        return None
    span = records[-1].received_s - records[0].received_s
    return Finding(
        "runaway-loop",
        f"Session {session} repeated itself {count} times in {span:.1f} s "
        f"({len(records)} of {len(log.requests)} requests).",
        "An agent without a limit of turns, or retries of an answer that cannot be parsed.",
        "Limit the turns; look at what the harness does with the answer.",
        ids_of(records),
    )


RULES: dict[str, Rule] = {
    "double-bos": double_bos,
    "missing-bos": missing_bos,
    "no-generation-prompt": no_generation_prompt,
    "retokenized-history": retokenized_history,
    "broken-characters": broken_characters,
    "look-alikes": look_alikes,
    "escaped-text": escaped_text,
    "greedy-not-first": greedy_not_first,
    "same-seeds": same_seeds,
    "sampling-changed": sampling_changed,
    "lost-cache": lost_cache,
    "runaway-loop": runaway_loop,
}
