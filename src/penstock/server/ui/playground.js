// Chat and completion against this server's own API, token by token.
import { bars, number } from "./chart.js";

const byId = (id) => document.getElementById(id);

/** Server-sent events of a response, parsed. */
async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

/** Pieces of one choice: text, reasoning, and tokens with logprobs, of either endpoint. */
function piecesOf(choice) {
  const text = choice.delta ? choice.delta.content ?? "" : choice.text ?? "";
  const thought = choice.delta?.reasoning_content ?? "";
  const calls = (choice.delta?.tool_calls ?? []).map((call) => (call.function?.name ?? "") + (call.function?.arguments ?? "")).join("");
  const given = choice.logprobs;
  let tokens = [];
  if (given?.content) {
    tokens = given.content.map((one) => ({ text: one.token, logprob: one.logprob, rivals: one.top_logprobs.map((r) => [r.token, r.logprob]) }));
  } else if (given?.tokens) {
    tokens = given.tokens.map((token, i) => ({ text: token, logprob: given.token_logprobs[i], rivals: Object.entries(given.top_logprobs?.[i] ?? {}) }));
  }
  const ids = choice.token_ids ?? [];
  tokens.forEach((token, i) => { token.id = ids[i]; });
  return { text: thought + text + calls, tokens };
}

export function startPlayground(call) {
  const form = byId("ask");
  let turns = [];
  let running = null;
  let tokens = [];

  const mode = () => form.elements.mode.value;
  const show = (role, text) => {
    const box = document.createElement("div");
    box.className = `turn ${role}`;
    const who = document.createElement("b");
    who.textContent = role;
    const body = document.createElement("span");
    body.textContent = text;
    box.append(who, body);
    byId("turns").append(box);
    return body;
  };
  const reset = () => { turns = []; byId("turns").replaceChildren(); clearAnswer(); };
  const clearAnswer = () => {
    tokens = [];
    byId("facts").textContent = "";
    byId("token-facts").textContent = "";
    byId("gaps").hidden = true;
  };

  function body() {
    const chat = mode() === "chat";
    const made = { model: document.body.dataset.model, stream: true, stream_options: { include_usage: true }, return_token_ids: true };
    for (const input of form.querySelectorAll(".controls input")) {
      if (input.value !== "") made[input.name] = input.type === "number" ? Number(input.value) : input.value;
    }
    if (chat) {
      const system = form.elements.system.value.trim();
      made.messages = [...(system ? [{ role: "system", content: system }] : []), ...turns];
      made.logprobs = true;
      made.top_logprobs = 5;
    } else {
      made.prompt = form.elements.prompt.value;
      made.logprobs = 5;
    }
    return made;
  }

  function facts(sent, first, last, usage, reason) {
    const parts = [];
    if (first !== null) parts.push(`first token ${number(first - sent)} ms`);
    if (tokens.length > 1) parts.push(`${number((1000 * (tokens.length - 1)) / Math.max(1, last - first))} tokens/s`);
    if (usage) {
      const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
      parts.push(`${usage.prompt_tokens} prompt tokens (${cached} cached), ${usage.completion_tokens} out`);
    }
    if (reason) parts.push(`ended by ${reason}`);
    byId("facts").textContent = parts.join(" · ");
  }

  function tokenView() {
    const box = byId("tokens");
    box.replaceChildren();
    for (const token of tokens) {
      const chip = document.createElement("button");
      chip.type = "button";
      const sure = Math.exp(token.logprob ?? 0);
      chip.style.background = `hsl(${Math.round(10 + 130 * sure)} 70% 78%)`;
      chip.textContent = token.text.replaceAll("\n", "⏎") || "∅";
      chip.addEventListener("click", () => {
        const rivals = token.rivals.map(([text, logprob]) => `${JSON.stringify(text)} ${(100 * Math.exp(logprob)).toFixed(1)} %`).join(", ");
        byId("token-facts").textContent = `${JSON.stringify(token.text)}: id ${token.id}, logprob ${token.logprob?.toFixed(3)} (${(100 * sure).toFixed(1)} %), after ${number(token.gap)} ms. Most likely: ${rivals}`;
      });
      box.append(chip);
    }
    const figure = byId("gaps");
    figure.querySelector("svg")?.remove();
    const gaps = tokens.slice(1).map((token) => token.gap);
    figure.hidden = gaps.length === 0;
    if (gaps.length) figure.append(bars(gaps, "Milliseconds before each token"));
  }

  async function send() {
    if (running) return;
    const prompt = form.elements.prompt.value;
    const chat = mode() === "chat";
    if (chat) { turns.push({ role: "user", content: prompt }); show("user", prompt); } else { reset(); show("prompt", prompt); }
    clearAnswer();
    running = new AbortController();
    byId("send").disabled = true;
    byId("stop").disabled = false;
    const out = show("assistant", "");
    const sent = performance.now();
    let [first, last, usage, reason, answer] = [null, sent, null, null, ""];
    try {
      const reply = await call(chat ? "v1/chat/completions" : "v1/completions", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body()),
        signal: running.signal,
      });
      if (!reply.ok) throw new Error((await reply.json()).error?.message ?? `HTTP ${reply.status}`);
      for await (const event of events(reply)) {
        if (event.error) throw new Error(event.error.message);
        usage = event.usage ?? usage;
        const choice = event.choices?.[0];
        if (!choice) continue;
        reason = choice.finish_reason ?? reason;
        const pieces = piecesOf(choice);
        if (!pieces.text && !pieces.tokens.length) continue;
        const now = performance.now();
        first ??= now;
        pieces.tokens.forEach((token, i) => { token.gap = i ? 0 : now - last; });
        last = now;
        tokens.push(...pieces.tokens);
        answer += pieces.text;
        out.textContent = answer;
      }
    } catch (error) {
      if (error.name === "AbortError") reason = "you";
      else show("error", error.message);
    } finally {
      running = null;
      byId("send").disabled = false;
      byId("stop").disabled = true;
    }
    if (chat && answer) turns.push({ role: "assistant", content: answer });
    else if (chat) turns.pop();
    facts(sent, first, last, usage, reason);
    tokenView();
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
  form.addEventListener("change", (event) => {
    if (event.target.name !== "mode") return;
    document.body.dataset.mode = mode();
    byId("prompt-label").textContent = mode() === "chat" ? "Message" : "Prompt";
    reset();
  });
  byId("clear").addEventListener("click", reset);
  byId("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (byId("play").hidden) return;
    if (event.key === "Enter" && event.ctrlKey) form.requestSubmit();
    if (event.key === "Escape") running?.abort();
  });
  document.body.dataset.mode = mode();
}
