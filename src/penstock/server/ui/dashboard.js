// The last minutes, refreshed each second: asks only for what is new.
import { chart, el, number } from "./chart.js";

const byId = (id) => document.getElementById(id);
const KEPT_SECONDS = 900;
const KEPT_REQUESTS = 1000;
const SHOWN_REQUESTS = 200;

export function startDashboard(call) {
  let seconds = [];
  let finished = [];
  let state = null;
  let visible = false;
  let timer = null;

  async function refresh() {
    clearTimeout(timer);
    if (!visible) return;
    try {
      const after = seconds.at(-1)?.at ?? -1;
      const reply = await call(`dashboard/data?second=${after}&serial=${state?.serial ?? 0}`);
      if (!reply.ok) throw new Error(reply.status === 401 ? "the API key is missing or wrong" : (await reply.json()).error?.message);
      const news = await reply.json();
      if (state && news.start !== state.start) { seconds = []; finished = []; state = null; return refresh(); }
      state = news;
      seconds = [...seconds, ...news.seconds].slice(-KEPT_SECONDS);
      finished = [...finished, ...news.finished].slice(-KEPT_REQUESTS);
      byId("state").textContent = `${news.health}; up ${duration(news.up_s)}`;
      byId("state").className = news.health === "healthy" ? "" : "bad";
      draw();
    } catch (error) {
      byId("state").textContent = `no data: ${error.message}`;
      byId("state").className = "bad";
    } finally {
      timer = setTimeout(refresh, 1000);
    }
  }

  /** Each second of the window; null where nothing was told (the engine tells each second). */
  function window_() {
    const length = Number(byId("window").value);
    const end = Math.floor(state.now) - 1;
    const known = new Map(seconds.map((second) => [second.at, second]));
    return Array.from({ length }, (_, i) => known.get(end - length + 1 + i) ?? null);
  }

  function draw() {
    const window = window_();
    const told = window.filter((second) => second !== null);
    tiles(told);
    const bucket = Math.max(1, Math.round(window.length / 60));
    const groups = [];
    for (let i = 0; i < window.length; i += bucket) groups.push(window.slice(i, i + bucket).filter((second) => second !== null));
    charts(groups, window.length);
    table();
  }

  function tiles(told) {
    const sum = (name) => told.reduce((total, second) => total + second[name], 0);
    const span = Math.max(1, told.length);
    const last = told.at(-1);
    const busy = sum("step_s");
    const prefix = state.engines.reduce((all, e) => [all[0] + e.prefix_hits, all[1] + e.prefix_queries], [0, 0]);
    const values = [
      ["Requests/s", number(sum("finished") / span)],
      ["Running", number(last?.running ?? 0)],
      ["Waiting", number(last?.waiting ?? 0)],
      ["TTFT p50 / p99", both(told, "ttft")],
      ["ITL p50 / p99", both(told, "itl")],
      ["Output tokens/s", number(sum("output_tokens") / span)],
      ["KV blocks in use", last?.blocks_total ? `${number((100 * last.blocks_used) / last.blocks_total)} %` : "–"],
      ["Prefix hit rate", prefix[1] ? `${number((100 * prefix[0]) / prefix[1])} %` : "–"],
      ["Engine busy", `${number(Math.min(100, (100 * busy) / span))} %`],
      ["Host share of steps", busy ? `${number(Math.max(0, 100 * (1 - sum("device_s") / busy)))} %` : "–"],
      ["Preemptions", number(sum("preemptions"))],
      ["Failed", number(sum("failed"))],
      ...state.telemetry.map(([name, value]) => [name, value]),
    ];
    byId("tiles").replaceChildren(...values.map(([name, value]) => {
      const box = document.createElement("div");
      const label = document.createElement("p");
      label.textContent = name;
      const figure = document.createElement("b");
      figure.textContent = value;
      box.append(label, figure);
      return box;
    }));
  }

  const merged = (list, name) => {
    const all = new Map();
    for (const second of list) for (const [index, times] of Object.entries(second[name])) all.set(Number(index), (all.get(Number(index)) ?? 0) + times);
    return [...all].sort((a, b) => a[0] - b[0]);
  };
  /** Milliseconds; the middle of the bucket that holds the wanted rank. */
  const percentile = (counts, part) => {
    const total = counts.reduce((sum, [, times]) => sum + times, 0);
    if (!total) return null;
    let left = Math.ceil(part * total);
    for (const [index, times] of counts) {
      left -= times;
      if (left <= 0) return 1000 * state.first_s * state.growth ** (index - 0.5);
    }
    return null;
  };
  const both = (told, name) => {
    const counts = merged(told, name);
    return counts.length ? `${number(percentile(counts, 0.5))} / ${number(percentile(counts, 0.99))} ms` : "–";
  };

  function charts(groups, length) {
    const rate = (name) => groups.map((g) => (g.length ? g.reduce((sum, s) => sum + s[name], 0) / g.length : null));
    const level = (name) => { // stays what it was until the engine tells otherwise
      let known = null;
      return groups.map((g) => (known = g.at(-1)?.[name] ?? known));
    };
    const share = (over, under) => groups.map((g) => {
      const below = g.reduce((sum, s) => sum + s[under], 0);
      return below ? g.reduce((sum, s) => sum + s[over], 0) / below : null;
    });
    const latency = (name) => [["p50", 0.5, "--s1"], ["p95", 0.95, "--s2"], ["p99", 0.99, "--s3"]].map(([label, part, color]) => ({
      name: label, color, values: groups.map((g) => percentile(merged(g, name), part)),
    }));
    const all = [
      ["Requests", "running, waiting", false, [{ name: "running", color: "--s1", values: level("running") }, { name: "waiting", color: "--s2", values: level("waiting") }]],
      ["Tokens a second", "computed or spared", true, [{ name: "prefill", color: "--s2", values: rate("prefill_tokens") }, { name: "cached", color: "--s4", values: rate("cached_tokens") }, { name: "decode", color: "--s1", values: rate("decode_tokens") }]],
      ["Time to first token", "ms", false, latency("ttft")],
      ["Time between tokens", "ms", false, latency("itl")],
      ["Whole request", "ms", false, latency("e2e")],
      ["Batch", "tokens a step", true, [{ name: "decode", color: "--s1", values: share("decode_tokens", "steps") }, { name: "prefill", color: "--s2", values: share("prefill_tokens", "steps") }]],
      ["KV blocks", "", true, [{ name: "in use", color: "--s1", values: level("blocks_used") }, { name: "cached", color: "--s4", values: level("blocks_cached") }]],
      ["Engine", "share of the time", false, [{ name: "in steps", color: "--s1", values: rate("step_s") }, { name: "in the model", color: "--s4", values: rate("device_s") }]],
    ];
    byId("charts").replaceChildren(...all.map(([title, unit, stacked, series]) => {
      const box = document.createElement("div");
      const head = document.createElement("h2");
      head.append(unit ? `${title}, ${unit}` : title);
      for (const one of series) {
        const key = document.createElement("span");
        const dot = document.createElement("i");
        dot.style.background = `var(${one.color})`;
        key.append(dot, `${one.name} ${number(one.values.findLast((v) => v !== null))}`);
        head.append(key);
      }
      const labels = [`${duration(length)} ago`, "now"];
      box.append(head, chart({ series, count: groups.length, stacked, labels, title }));
      return box;
    }));
  }

  function table() {
    const only = byId("filter").value;
    let rows = [...state.running, ...finished.toReversed()];
    if (only === "running") rows = state.running;
    if (only === "failed") rows = rows.filter((row) => row.reason === "error" || row.reason === "timeout");
    if (only === "slow") rows = rows.filter((row) => row.ttft_s !== null).sort((a, b) => b.ttft_s - a.ttft_s);
    const body = document.querySelector("#requests tbody");
    const focused = document.activeElement?.closest?.("#requests tr")?.dataset.id;
    body.replaceChildren(...rows.slice(0, SHOWN_REQUESTS).map((row) => {
      const line = document.createElement("tr");
      line.tabIndex = 0;
      line.dataset.id = row.id;
      const cells = [row.id, `${duration(Math.max(0, state.now - row.arrived))} ago`, row.num_prompt, row.cached_tokens ?? "–", row.num_output, ms(row.ttft_s), ms(row.e2e_s), row.preemptions ?? "–", row.reason ?? "running"];
      for (const text of cells) line.insertCell().textContent = text;
      if (row.reason === "error" || row.reason === "timeout") line.lastChild.className = "bad";
      return line;
    }));
    if (focused) body.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  }

  async function story(id) {
    const reply = await call(`dashboard/requests/${encodeURIComponent(id)}`);
    const found = await reply.json();
    byId("story-title").textContent = id;
    byId("story-body").replaceChildren(...(reply.ok ? explained(found) : [found.error.message]));
    byId("story").showModal();
  }

  byId("requests").addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr");
    if (line) story(line.dataset.id);
  });
  byId("requests").addEventListener("keydown", (event) => {
    const line = event.target.closest("tbody tr");
    if (!line) return;
    if (event.key === "Enter") story(line.dataset.id);
    if (event.key === "ArrowDown") line.nextElementSibling?.focus();
    if (event.key === "ArrowUp") line.previousElementSibling?.focus();
  });
  for (const id of ["window", "filter"]) byId(id).addEventListener("change", () => state && draw());
  document.addEventListener("page", (event) => { visible = event.detail === "dash"; refresh(); });
}

/** A request's time as spans from mark to mark: what it waited for, then what it got. */
export function spansOf(marks, end) {
  const color = { intake: "--line", queued: "--s2", held: "--s3", prefill: "--s4", decode: "--s1", preempted: "--bad" };
  const spans = [];
  let [kind, from, why, fresh] = ["intake", 0, "", true];
  const to = (next, at, reason = "") => {
    if (at > from) spans.push({ kind, from, to: at, why, color: color[kind] });
    [kind, from, why] = [next, at, reason];
  };
  for (const [at, event, what] of marks) {
    if (event === "queued") to("queued", at);
    else if (event === "held") to("held", at, `until ${what} has computed the same prefix`);
    else if (event === "scheduled" || event === "resumed") { to("prefill", at, what ? `${what} tokens from the cache` : ""); fresh = true; }
    else if (event === "preempted") to("preempted", at, `its blocks went to ${what}`);
    else if (event === "tokens" && fresh) { to("decode", at); fresh = false; }
    else if (event === "finished") to("", at);
  }
  if (kind && end > from) to("", end);
  return spans;
}

function explained(found) {
  const end = found.e2e_s ?? found.marks.at(-1)[0];
  const spans = spansOf(found.marks, end);
  const wide = 900;
  const x = (at) => (wide * at) / Math.max(end, 1e-6);
  const svg = el("svg", { viewBox: `0 0 ${wide} 56`, role: "img", "aria-label": "Where the time went" });
  for (const span of spans) {
    const part = el("rect", { x: x(span.from), y: 4, width: Math.max(1, x(span.to) - x(span.from)), height: 26, fill: `var(${span.color})` });
    part.append(el("title", {}, `${span.kind} ${ms(span.to - span.from)}`));
    svg.append(part);
  }
  for (const [at, event] of found.marks) {
    if (event === "tokens") svg.append(el("line", { x1: x(at), x2: x(at), y1: 32, y2: 42, stroke: "var(--soft)", "stroke-width": 0.7 }));
  }
  svg.append(el("text", { x: 0, y: 54 }, "0"), el("text", { x: wide, y: 54, "text-anchor": "end" }, ms(end)));
  const list = document.createElement("table");
  for (const span of spans) {
    const line = list.insertRow();
    for (const text of [span.kind, ms(span.to - span.from), `${((100 * (span.to - span.from)) / end).toFixed(1)} %`, span.why]) line.insertCell().textContent = text;
  }
  const facts = document.createElement("p");
  facts.textContent = `${found.num_prompt} prompt tokens, ${found.num_output} out, first token after ${ms(found.ttft_s)}, ${found.reason ? `ended by ${found.reason}` : "still running"}`;
  return [facts, svg, list];
}

function ms(seconds) {
  return seconds === null || seconds === undefined ? "–" : `${number(seconds * 1000)} ms`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
