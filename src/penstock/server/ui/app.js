// Tabs, theme, the API key and the model's name; the two pages are modules of their own.
import { startDashboard } from "./dashboard.js";
import { startPlayground } from "./playground.js";

const byId = (id) => document.getElementById(id);

/** fetch with the key of this tab; paths are relative, so that the page works behind a prefix. */
export function call(path, options = {}) {
  const key = sessionStorage.getItem("penstock-key");
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  return fetch(path, { ...options, headers });
}

function tabs() {
  const all = [...document.querySelectorAll("[role=tab]")];
  const choose = (tab, focus) => {
    for (const each of all) {
      const on = each === tab;
      each.setAttribute("aria-selected", on);
      each.tabIndex = on ? 0 : -1;
      byId(each.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) tab.focus();
    history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
    document.dispatchEvent(new CustomEvent("page", { detail: tab.getAttribute("aria-controls") }));
  };
  for (const [index, tab] of all.entries()) {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose(all[(index + step + all.length) % all.length], true);
    });
  }
  choose(all.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? all[0], false);
}

function theme() {
  const root = document.documentElement;
  const kept = localStorage.getItem("penstock-theme");
  if (kept) root.dataset.theme = kept;
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("penstock-theme", root.dataset.theme);
  });
}

async function name() {
  const reply = await call("v1/models");
  if (reply.status === 401) {
    byId("key").open = true;
    byId("model").textContent = "This server needs an API key.";
    return;
  }
  const [model] = (await reply.json()).data;
  document.body.dataset.model = model.id;
  byId("model").textContent = `${model.id}, context ${model.max_model_len ?? "…"} tokens`;
  if (model.max_model_len === null) setTimeout(name, 1000); // it is still loading
}

byId("api-key").value = sessionStorage.getItem("penstock-key") ?? "";
byId("api-key").addEventListener("change", (event) => {
  sessionStorage.setItem("penstock-key", event.target.value);
  name();
});
byId("key-form").addEventListener("submit", (event) => event.preventDefault());
theme();
startPlayground(call);
startDashboard(call);
tabs();
name();
